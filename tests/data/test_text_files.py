"""Text files: header, separator, quotes, blank lines."""

import gzip
from pathlib import Path

import pytest

from recdistill.data.text_files import Layout, read_fields, read_layout
from recdistill.errors import InputError

USED = {"user": "user", "item": "item", "timestamp": "timestamp"}
ITEMS = {"item": "item", "title": "title"}


def read(folder: Path, content: str | bytes, used: dict[str, str] = USED, quoted: bool = True) -> list[list[str]]:
    path = folder / "log.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    layout = read_layout(path, list(used.values()), quoted)
    return read_fields(path, layout, used).values.tolist()


@pytest.mark.parametrize(
    "before",
    [
        "",
        "\n",
        "\r\n\r\n",
        "  \t \n",
        ",\n",
        ",,,,\n",
        " , ,\n\n",
        '"",""\n',
        ";;\n",
        "sep=,\n",
        "SEP=,\r\n",
        "\n,\nsep=,\n",
        "\u00a0,\u3000\n\u2028\n",
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_lines_without_text_before_the_header(tmp_path, before, zipped):
    content = f"{before}user,item,timestamp\na,1,5\nb,2,6\n".encode()
    content = b"\xef\xbb\xbf" + content
    assert read(tmp_path, gzip.compress(content, mtime=0) if zipped else content) == [["a", "1", "5"], ["b", "2", "6"]]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_header_tells_the_separator(tmp_path, separator, line_end):
    rows = [["user", "note, etc;", "item", "timestamp"], ["a", 'x"y', "1,;|\t2", "5"], ["ü", "", "3", "6"]]
    text = line_end.join(separator.join('"{}"'.format(cell.replace('"', '""')) for cell in row) for row in rows)
    assert read(tmp_path, text) == [["a", "1,;|\t2", "5"], ["ü", "3", "6"]]


def test_excel_says_the_separator_in_its_first_line(tmp_path):
    assert read(tmp_path, "sep=;\nuser;item;timestamp;a,b,c,d\nx;1;5;\n") == [["x", "1", "5"]]


def test_a_header_with_a_line_break_in_a_name(tmp_path):
    assert read(tmp_path, '"a\nb",user,item,timestamp\n1,x,1,5\n2,y,1,6\n') == [["x", "1", "5"], ["y", "1", "6"]]
    assert read(tmp_path, 'user,item,timestamp,5" disc\nx,1,5,0\ny,1,6,"0"\n') == [["x", "1", "5"], ["y", "1", "6"]]


def test_rows_without_any_text_are_left_out(tmp_path):
    text = "user,note,item,timestamp\na,,1,5\n\n,,,\n , ,,\nb,n,2,6\n,,,\n\n"
    assert read(tmp_path, text) == [["a", "1", "5"], ["b", "2", "6"]]
    assert read(tmp_path, "user,note,item,timestamp\n,n,,\n") == [["", "", ""]]
    with pytest.raises(InputError, match="has a header and no rows"):
        read(tmp_path, "user,item,timestamp\n,,\n\n")


def test_quotes_inside_fields_that_are_not_quoted_are_text(tmp_path):
    assert read(tmp_path, 'item,title\n1,12" disc\n2,The "A" of 3"\n', ITEMS) == [
        ["1", '12" disc'],
        ["2", 'The "A" of 3"'],
    ]
    assert read(tmp_path, 'item\ttitle\n1\t"Open\n2\t"B" c\n', ITEMS, quoted=False) == [["1", '"Open'], ["2", '"B" c']]


def test_line_breaks_in_other_columns_and_line_separators_are_text(tmp_path):
    text = 'user,item,timestamp,review\na,1,5,"nice\nand, well, good\n"\nb,2,6,"\n\nfine, 5, 6, 7, 8\n3"\n'
    assert read(tmp_path, text) == [["a", "1", "5"], ["b", "2", "6"]]
    titles = read(tmp_path, "item,title\n1,A\u2028B\x85\x0b\x0cC\n2,D\n", ITEMS)
    assert titles == [["1", "A\u2028B\x85\x0b\x0cC"], ["2", "D"]]


@pytest.mark.parametrize(
    ("text", "used", "told"),
    [
        ('item,title\n1,A\n2,"B\n3,C\n4,"D"\n', ITEMS, "line 3: title opens a quote .* takes 2 more lines; close it"),
        ('item,title\n1,A\n2,"B\n3,C\n4,"D, E"\n', ITEMS, "line 3: title opens a quote"),
        ('item,title\n1,A\n2,"B\n3,C\n', ITEMS, "line 3: title opens a quote .* takes 2 more lines"),
        ('item,title\n1,A\n2,"B\n', ITEMS, "line 3: title opens a quote .* takes 1 more lines"),
        ('item,title\n1,A\n2,"B', ITEMS, "line 3: title opens a quote .* takes 0 more lines"),
        ('\n,\nitem,title\n1,A\n2,"B\n3,"C"\n', ITEMS, "line 5: title opens a quote"),
        ('item,title\n"1,A\n2","B"\n', ITEMS, "line 2: item opens a quote .* takes 1 more lines"),
        ('note,item,title\n"a\nb",1,"C\n",2,D\n"x",3,E\n', ITEMS, "line 3: title opens a quote"),
        ('user,item,timestamp\n"a,1,5\na,2,6\na,3,"7\n', USED, "line 2: user opens a quote .* takes 2 more lines"),
        ('user,item,timestamp\na,"1,5\na",2,6\n', USED, "line 2: item opens a quote"),
        ('user,item,timestamp\na,1,"5\na,2,6\nb,3,"7\n', USED, "line 2: timestamp opens a quote"),
        ('user\titem\ttimestamp\n"a\t1\t5\r\n"b"\t2\t6\r\n', USED, "line 2: user opens a quote .* 1 more"),
        ('user,item,timestamp,note\na,1,5,"x\na,2,6,y"\nb,3,7,z\n', USED, "line 2: note opens a quote .* takes 1 more"),
        (
            'user,note,item,timestamp\na,n,1,5\na,"x,2,6\nb,n,3,2024-01-01\nb,n,4,8"\nb,n,3,7\n',
            USED,
            "line 3: note opens a quote .* takes 2 more lines",
        ),
        (
            'user,item,timestamp\na,1,5\n"b,2,6' + "\nb,2,6" * 50_000 + '\n"c",3,7\n',
            USED,
            "line 3: user .* takes 50001",
        ),
        (
            "user,item,timestamp\na,1,5\na,1,5,7\n",
            USED,
            "line 3 has 4 fields, the header 3; quote fields that hold commas",
        ),
        ("user,item,timestamp\na,1,5,7\na,1,5,7\n", USED, "line 2 has 4 fields, the header 3"),
        ("\n\nuser;item;timestamp\n\na;1;5;7\n", USED, "line 5 has 4 fields, the header 3; quote .* semicolons"),
    ],
)
def test_what_a_quote_swallows_is_refused_with_the_line_where_it_opens(tmp_path, text, used, told):
    with pytest.raises(InputError, match=f"log.csv: {told}") as caught:
        read(tmp_path, text, used)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_lines_of_another_column_that_may_be_items_are_said(tmp_path, said):
    rows = read(tmp_path, 'item,title,about\n1,A,"x\n2,B,y\n3,C,z"\n4,D,w\n', ITEMS)
    assert rows == [["1", "A"], ["4", "D"]]
    (line,) = said()
    assert "log.csv: warning: about holds lines that look like rows, as ['2', 'B']; is a quote left open?" in line
    read(tmp_path, 'item,genre,title\n1,"x,A\n2,y,B\n3,"z",C\n4,w,D\n', ITEMS)
    (line,) = said()
    assert "genre holds lines that look like rows, as ['2', 'y', 'B']" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty; its first line must be user,item,timestamp"),
        (b"\n,,\n \n", "is empty"),
        (b"user,item,timestamp\n", "has a header and no rows"),
        (b"user,item,item,timestamp\n", "column 'item' stands twice in the header"),
        (b"user,item,timestamp\n\xff\xfe,7,1\n", "is not UTF-8 at byte"),
        (b"\xff\xfeu\x00", "is not UTF-8 at byte 0"),
        (gzip.compress(b"user,item,timestamp\na,1,5\n", mtime=0)[:-9], "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path, content, told):
    with pytest.raises(InputError, match=f"log.csv: {told}") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_separators_of_two_characters(tmp_path):
    path = tmp_path / "ratings.dat"
    path.write_bytes('1::a:b,"é"::5\r\n2::c::6\r\n'.encode("latin-1"))
    layout = Layout(["user", "item", "timestamp"], "::", lines=0, quoted=False, encoding="latin-1")
    assert read_fields(path, layout, USED).values.tolist() == [["1", 'a:b,"é"', "5"], ["2", "c", "6"]]
    path.write_text("1::a::5\n2::c::6::7\n")
    with pytest.raises(InputError, match="line 2 has 4 fields, the header 3; fields must hold no double colons"):
        read_fields(path, layout, USED)
