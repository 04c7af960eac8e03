"""Which headers stand for which columns."""

import pytest

from recdistill.data.columns import headers_of, pick, refuse_unused
from recdistill.errors import InputError

NAMES = ["customer_id", "sku", "bought_at", "item"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("", {}),
        (" ", {}),
        ("user:customer_id", {"user": ("customer_id",)}),
        (" user : customer id ,item:sku", {"user": ("customer id",), "item": ("sku",)}),
        ("item:sku,item:product", {"item": ("sku", "product")}),
        ("item:item_id:token", {"item": ("item_id:token",)}),
    ],
)
def test_what_is_written(columns, expected):
    assert headers_of(columns) == expected


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("customer_id", "'customer_id' is no column:header; write columns=user:"),
        ("user:", "'user:' is no column:header"),
        ("user:a,,item:b", "'' is no column:header"),
        ("users:a", r"'users' is none of user, item, timestamp, title \(nearest: user\)"),
        ("rating:a", "'rating' is none of user, item, timestamp, title; write"),
    ],
)
def test_what_is_refused(columns, told):
    with pytest.raises(InputError, match=told) as caught:
        headers_of(columns)
    assert "\n" not in str(caught.value)


def test_named_headers_come_before_the_columns_own_names():
    assert pick(["item", "sku"], ["item"], {"item": ("sku",)}, "x") == {"item": "sku"}
    assert pick(["a", "b"], ["user", "item"], {"user": ("b",), "item": ("a",)}, "x") == {"user": "b", "item": "a"}


def test_items_may_be_called_otherwise_in_one_file_alone():
    assert pick(["item", "title"], ["item", "title"], {"item": ("sku",)}, "x") == {"item": "item", "title": "title"}
    with pytest.raises(
        InputError, match=r"^x: has no column 'customer', found user .*; name it so, or say which it is"
    ):
        pick(["user"], ["user"], {"user": ("customer",)}, "x")


def test_what_is_missing_is_named_with_its_nearest():
    with pytest.raises(
        InputError, match=r"^x: has no column 'user', found User_ID, y \(nearest: User_ID\); name it so"
    ):
        pick(["User_ID", "y"], ["user"], {}, "x")
    with pytest.raises(InputError, match=r"^x: has no column 'user', found none; name it so"):
        pick([], ["user"], {}, "x")


def test_two_headers_of_one_column_in_one_file_are_refused():
    with pytest.raises(InputError, match="has columns 'sku' and 'ean'; columns= must name one for item"):
        pick(["sku", "ean"], ["item"], {"item": ("sku", "ean")}, "x")


def test_a_header_that_no_file_has_is_refused():
    headers = headers_of("item:sku,item:ean")
    refuse_unused("", headers, {"item": "sku"}, {"item": "ean", "title": "title"})
    with pytest.raises(InputError, match="columns=given: no file has a column 'ean' for item; leave it out"):
        refuse_unused("given", headers, {"item": "sku"}, {"item": "item"})
