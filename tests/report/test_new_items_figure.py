from recdistill.report.new_items_figure import new_items_figure


def test_the_picture_shows_each_part_and_follows_the_numbers():
    curves = {"validation": [(0.0, 0.0), (0.02, 0.01)], "test": [(0.0, 0.001), (0.03, 0.02)]}
    first = new_items_figure(curves, {"validation": 1, "test": 1}, "New items")
    assert first.startswith(b"\x89PNG")
    assert first == new_items_figure(curves, {"validation": 1, "test": 1}, "New items")
    assert first != new_items_figure(curves, {"validation": 0, "test": 0}, "New items")
    assert first != new_items_figure({"validation": curves["validation"]}, {"validation": 1}, "New items")
