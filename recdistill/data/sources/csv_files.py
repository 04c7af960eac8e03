"""``dataset=csv``: a person's own interactions and items, a file of text or Parquet each."""

from recdistill.config.data import DataConfig
from recdistill.data.columns import INTERACTION_COLUMNS, ITEM_COLUMNS, headers_of, refuse_unused
from recdistill.data.interactions import Interactions
from recdistill.data.sources.recbole import is_atomic, recbole
from recdistill.data.streamed_columns import streamed_columns
from recdistill.data.table_files import existing_file, read_table, say_taken
from recdistill.data.tables import interactions_of_columns, interactions_of_tables
from recdistill.registry import SOURCES


@SOURCES.register("csv", columns=True)
def csv_files(config: DataConfig) -> Interactions:
    """Read the files ``interactions`` (columns user, item, timestamp) and ``items`` (item, title).

    Text files have a header, which tells whether commas, tabs, semicolons or bars separate fields, and may be gzipped;
    Parquet is a file, or a folder of them. Columns stand in any order; ``columns`` says what they are called where it
    is not so. Other columns of interactions are ignored, those of items are kept as text, for item texts. A ``.inter``
    file is read as ``dataset=recbole`` does. Ids are text: '007' stays '007'. Timestamps are numbers or ISO dates.
    Raises InputError naming file, row (counted from the first row after the header) and what to do.
    """
    if is_atomic(config.interactions):
        return recbole(config)
    headers = headers_of(config.columns)
    items_path = existing_file("items", config.items, folders=True)
    items, of_items = read_table(items_path, ITEM_COLUMNS, headers, further=True)
    path = existing_file("interactions", config.interactions, folders=True)
    streamed = streamed_columns(path, headers)
    if streamed is not None:
        say_taken(path, streamed.form, streamed.used, len(streamed))
        refuse_unused(config.columns, headers, of_items, streamed.used)
        return interactions_of_columns(
            streamed.user,
            streamed.item,
            streamed.timestamps,
            str(path),
            items,
            str(items_path),
            config.missing_titles,
        )
    table, of_table = read_table(path, INTERACTION_COLUMNS, headers)
    refuse_unused(config.columns, headers, of_items, of_table)
    return interactions_of_tables(table, str(path), items, str(items_path), config.missing_titles)
