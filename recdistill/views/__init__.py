"""Views of an item's text: vectors that are there for a new item, too, which nobody has clicked on yet.

The way of a text::

    titles, columns -> item_texts -> view.vectors -> Standardiser -> ItemVectors.table -> a student's item space

- *Text*: `item_texts.item_texts(titles, columns, item_text, text_template)` makes one text an item of the columns that
  the user names; it is in `recdistill.data`, as teachers read it, too. `item_texts.texts_digest(texts)` is what a run's
  key has of them.
- *View*: a part of the registry `VIEWS`, a file each; a class of `view.View`. ``fit(texts)`` learns from the texts of
  trained items alone, where the view learns anything; ``vectors(texts)`` is float32 ``[n, D_view]``, finite, for any
  texts, new and empty ones included, each by itself: neither order nor company counts. ``identity()`` says, as JSON
  values, what made the vectors. A view that asks a frozen model (`frozen_view.FrozenView`) keeps each text's vector in
  the user's cache, so that a model reads a text once, whatever runs and draws come after, and a killed run goes on.
- *Standardised* (`standardise.Standardiser`): mean and main directions of the trained items alone, at most
  ``view_directions``, partly whitened (``view_whitening``), and every view with the same total variance, 1.
- *Together*: ``item_vectors.ItemVectors.fit(config, texts, trained, teacher=None)`` has ``.table`` float32 ``[V, D]``,
  ``.of(texts)`` for new texts (of the old texts: the rows of the table), ``.names``, ``.identity``, ``.costs`` (tokens
  and seconds that the vectors took when they were made), ``.save(folder)`` and ``ItemVectors.load(folder)``: JSON and
  safetensors. A blank text has the vector 0, which is the trained items' mean.

`recdistill.config.views.ViewsConfig` has the options. Where it leaves choices open (``views=tfidf/sentence+tfidf``,
``llm_reading=mean/prompt/echo``), ``config.alternatives()`` lists them, and whoever has a validation set chooses.
"""
