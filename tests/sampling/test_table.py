from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.sampling import table as module
from qprd.sampling.splits import Split
from qprd.sampling.table import Label, Patch, PatchTable, check_splits_apart

HEADER = "slide,name,x,y,size_px,mpp,label,split\n"

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)
patches = st.builds(
    Patch,
    slide=names,
    name=names,
    x=st.integers(0, 2**31 - 1),
    y=st.integers(0, 2**31 - 1),
    size_px=st.floats(1, 1e5),
    mpp=st.floats(1e-3, 1e3),
    label=st.sampled_from(["tumor", "normal"]),
    split=st.just("train"),
    reviewed=st.booleans(),
    fingerprint=st.none() | st.just("0123456789abcdef" * 2),
)


def patch(
    slide: str = "1", x: int = 0, y: int = 0, split: Split = "train", label: Label = "tumor"
) -> Patch:
    return Patch(slide, f"{slide}.svs", x, y, 100.0, 0.5, label, split)


@given(st.lists(patches, max_size=5))
@settings(max_examples=60)
def test_a_saved_table_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Patch]
) -> None:
    path = tmp_path_factory.mktemp("table") / "patches.csv"
    table = PatchTable(tuple(rows))
    table.to_csv(path)
    assert PatchTable.from_csv(path) == table
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,a,1,2,100,0.5,tumor", "7 values"),
        ("1,a,1.5,2,100,0.5,tumor,train", "x is '1.5'"),
        ("1,a,-1,2,100,0.5,tumor,train", "x is '-1'"),
        ("1,a,1," + "9" * 5000 + ",100,0.5,tumor,train", "y is"),
        ("1,a,1,2,nan,0.5,tumor,train", "size_px is 'nan'"),
        ("1,a,1,2,inf,0.5,tumor,train", "size_px is 'inf'"),
        ("1,a,1,2,100,0,tumor,train", "mpp is '0'"),
        ("1,a,1,2,100,0.5,Tumour,train", "label is 'Tumour'"),
        ("1,a,1,2,100,0.5,tumor,training", "split is 'training'"),
        ("1,a,1,2,100,0.5,tumor,train,yes", "9 values"),
        (",a,1,2,100,0.5,tumor,train", "slide is ''"),
        ('1,"a', "not a CSV file"),
        ("1," + "a" * 200_000 + ",1,2,100,0.5,tumor,train", "not a CSV file"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: str, says: str) -> None:
    path = tmp_path / "patches.csv"
    path.write_text(HEADER + "1,a,1,2,100,0.5,tumor,train\n" + row + "\n", encoding="utf-8")
    with pytest.raises(QprdError) as caught:
        PatchTable.from_csv(path)
    assert says in caught.value.problem
    assert "line 3" in (caught.value.where or "")
    assert len(caught.value.problem) < 200


def test_a_table_may_say_which_patches_come_from_a_review(tmp_path: Path) -> None:
    path = tmp_path / "patches.csv"
    header = HEADER.strip() + ",reviewed\n"
    path.write_text(header + "1,a,1,2,100,0.5,tumor,train,yes\n1,a,9,2,100,0.5,tumor,train,no\n")
    assert [p.reviewed for p in PatchTable.from_csv(path).patches] == [True, False]
    path.write_text(header + "1,a,1,2,100,0.5,tumor,train,perhaps\n")
    with pytest.raises(QprdError, match="reviewed is 'perhaps'"):
        PatchTable.from_csv(path)


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    path = tmp_path / "patches.csv"
    path.write_text(HEADER + "1,a,1,2,100,0.5,tumor,train\n", encoding="utf-8-sig")
    assert len(PatchTable.from_csv(path)) == 1


@pytest.mark.parametrize("content", [b"", b"x,y\n1,2\n", b"\xff\xfe\x00\x01"])
def test_another_file_is_not_taken_for_a_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "patches.csv"
    path.write_bytes(content)
    with pytest.raises(QprdError, match="patch table"):
        PatchTable.from_csv(path)


def test_an_absurd_number_of_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    path = tmp_path / "patches.csv"
    PatchTable(tuple(patch(x=i) for i in range(4))).to_csv(path)
    with pytest.raises(QprdError, match="more than 3"):
        PatchTable.from_csv(path)


def test_a_slide_in_two_splits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "patches.csv"
    PatchTable((patch("1"), patch("2", split="val"), patch("1", 500, split="val"))).to_csv(path)
    with pytest.raises(QprdError, match="more than one split"):
        PatchTable.from_csv(path)


def test_an_only_slide_may_be_in_two_splits_where_they_do_not_overlap() -> None:
    check_splits_apart([patch(x=0), patch(x=50), patch(x=150, split="val")])
    with pytest.raises(QprdError, match="overlap but are in different splits"):
        check_splits_apart([patch(x=0), patch(x=99, split="val")])


def test_a_failed_save_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "patches.csv"
    PatchTable((patch(),)).to_csv(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        PatchTable((patch(), patch(x=5))).to_csv(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_counts_name_every_split_and_label() -> None:
    counts = PatchTable((patch(), patch(x=1), patch("2", split="val", label="normal"))).counts()
    assert counts["train", "tumor"] == 2
    assert counts["val", "normal"] == 1
    assert counts["test", "tumor"] == 0
    assert len(counts) == 6
