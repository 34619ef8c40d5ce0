"""Sheets: crisp, complete, equal for equal pictures."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datamill import sheets


def _read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8)


def _noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_a_tiny_picture_is_enlarged_by_a_whole_factor_with_sharp_pixels(tmp_path: Path) -> None:
    picture = _noise(8, 8)
    sheets.write_sheet(tmp_path / "s.png", [picture], ["one"], 1, "Heading")
    page = _read(tmp_path / "s.png")
    top, left = 16 + 22, 16
    assert np.array_equal(page[top : top + 96, left : left + 96], picture.repeat(12, axis=0).repeat(12, axis=1))


def test_equal_pictures_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        sheets.write_sheet(tmp_path / name, [_noise(8, 8), _noise(20, 9)], ["x", "y\nz"], 2, "Heading\nmore")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_large_picture_is_shrunk_to_its_cell(tmp_path: Path) -> None:
    sheets.write_sheet(tmp_path / "s.png", [np.zeros((1000, 500, 3), np.uint8)], ["long"], 1, "Heading")
    assert _read(tmp_path / "s.png").shape == (16 + 22 + 192 + 14 + 10 + 8, 420, 3)


def test_pictures_fill_rows_from_left_to_right(tmp_path: Path) -> None:
    black = np.zeros((96, 96, 3), np.uint8)
    sheets.write_sheet(tmp_path / "s.png", [black] * 5, [""] * 5, 4, "Heading")
    page = _read(tmp_path / "s.png")
    second_row = 38 + 96 + 14 + 10
    assert (page[second_row + 40, 16 : 16 + 96] == 0).all()
    assert (page[second_row + 40, 16 + 110 :] == 255).all()


def test_a_colour_frames_its_picture(tmp_path: Path) -> None:
    sheets.write_sheet(tmp_path / "s.png", [np.zeros((96, 96, 3), np.uint8)], [""], 1, "H", colours=["#c92a2a"])
    assert _read(tmp_path / "s.png")[60, 15].tolist() == [0xC9, 0x2A, 0x2A]


def test_no_picture_leaves_the_heading_alone(tmp_path: Path) -> None:
    sheets.write_sheet(tmp_path / "s.png", [], [], 3, "Nothing to show")
    page = _read(tmp_path / "s.png")
    assert page.shape[0] < 60
    assert (page < 128).any()


def test_a_title_wider_than_its_cell_is_cut(tmp_path: Path) -> None:
    picture = [np.zeros((96, 96, 3), np.uint8)]
    sheets.write_sheet(tmp_path / "s.png", picture, ["W" * 200], 1, "H")
    assert (_read(tmp_path / "s.png")[140:, 240:] == 255).all()


def test_strips_draw_more_ink_when_values_change(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    values[0, 0] = np.nan
    sheets.write_strips(tmp_path / "alone.png", ["a", "b", "c"], values, None, "H")
    sheets.write_strips(tmp_path / "both.png", ["a", "b", "c"], values, values + 0.5, "H")
    orange = [
        (_read(tmp_path / name)[..., 0].astype(int) - _read(tmp_path / name)[..., 2] > 100).sum()
        for name in ("alone.png", "both.png")
    ]
    assert orange[0] == 0
    assert orange[1] > 100


def test_pictures_in_many_columns_are_shrunk_until_a_card_can_show_them(tmp_path: Path) -> None:
    large = [np.zeros((400, 400, 3), np.uint8)] * 8
    sheets.write_sheet(tmp_path / "s.png", large, [""] * 8, 8, "H")
    assert _read(tmp_path / "s.png").shape[1] <= 1060
    assert sheets.columns_for(large, most=8) == 5  # at their largest
    assert sheets.columns_for([_noise(8, 8)] * 8, most=8) == 8


def test_flat_pictures_leave_no_gap_below(tmp_path: Path) -> None:
    sheets.write_sheet(tmp_path / "s.png", [np.zeros((50, 192, 3), np.uint8)], ["one"], 1, "Heading")
    assert _read(tmp_path / "s.png").shape == (16 + 22 + 50 + 14 + 10 + 8, 420, 3)
