from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import Polygon, box

from qprd.predictions import ScoreMap
from qprd.results.contours import contours
from qprd.review.figures import figure_png
from qprd.review.overview import overview_figure
from qprd.scoring.unscored import Unscored

THUMBNAIL = np.full((120, 80, 3), (230, 190, 215), dtype=np.uint8)
SCORES = ScoreMap(
    np.linspace(0, 4, 12 * 8, dtype=np.float32).reshape(12, 8), x=0, y=0, cell_px=160, mpp=0.5
)


def decoded(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def draw(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "thumbnail": THUMBNAIL,
        "downsample": 16.0,
        "score_map": SCORES,
        "contours": contours(SCORES, 2.0, min_area_um2=0, min_hole_um2=0, tolerance_um=5),
        "threshold": 2.0,
        "title": "slide.svs",
    } | changes
    return figure_png(overview_figure(**arguments), dpi=60)


def texts(**changes: Any) -> list[str]:
    arguments: dict[str, Any] = {
        "thumbnail": THUMBNAIL,
        "downsample": 16.0,
        "score_map": SCORES,
        "contours": [],
        "threshold": 2.0,
        "title": "slide.svs",
    } | changes
    from matplotlib.text import Text

    figure = overview_figure(**arguments)
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_picture_shows_the_slide_the_contours_and_the_heatmap() -> None:
    picture = decoded(draw())
    colors = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert (230, 190, 215) in colors  # the thumbnail as it is
    cyan = (picture[..., 2] > 200) & (picture[..., 1] > 180) & (picture[..., 0] < 170)
    assert cyan.sum() > 100  # contours, in both panels
    without = decoded(draw(contours=[]))
    assert (picture != without).any()


def test_same_input_gives_the_same_bytes() -> None:
    assert draw() == draw()


def test_cells_outside_the_tissue_are_transparent() -> None:
    nothing = ScoreMap(np.full((12, 8), np.nan, dtype=np.float32), 0, 0, 160, 0.5)
    from matplotlib import colormaps

    figure = overview_figure(THUMBNAIL, 16.0, nothing, [], threshold=2.0, title="empty")
    overlay = figure.axes[1].images[1]
    shown = overlay.get_array()
    assert shown is not None
    assert np.ma.getmaskarray(shown).all()
    assert overlay.get_cmap()(np.ma.masked_all(1))[0, 3] == 0
    assert overlay.get_cmap().name == colormaps["magma"].name


def test_overlay_lies_where_the_score_map_says() -> None:
    shifted = ScoreMap(SCORES.scores, x=320, y=-160, cell_px=80, mpp=0.5)
    figure = overview_figure(THUMBNAIL, 16.0, shifted, [], threshold=2.0, title="shifted")
    slide, heatmap = figure.axes[:2]
    assert tuple(heatmap.images[1].get_extent()) == (320, 320 + 8 * 80, -160 + 12 * 80, -160)
    for axes in (slide, heatmap):
        assert axes.get_xlim() == (0, 80 * 16)
        assert axes.get_ylim() == (120 * 16, 0)


@pytest.mark.parametrize(
    ("raw_range", "threshold", "limits"),
    [
        ((-3.0, 5.0), 2.0, (-3.0, 5.0)),
        ((-3.0, 5.0), 7.5, (-3.0, 7.5)),
        ((-3.0, 5.0), None, (-3.0, 5.0)),
        (None, 2.0, (0.0, 4.0)),
        (None, -20.0, (-20.0, 4.0)),
        ((0.5, 0.5), None, (0.499, 0.501)),
    ],
)
def test_raw_scores_are_shown_in_the_range_given_or_in_that_of_the_slide(
    raw_range: tuple[float, float] | None, threshold: float | None, limits: tuple[float, float]
) -> None:
    figure = overview_figure(
        THUMBNAIL, 16.0, SCORES, [], threshold=threshold, title="a", raw_range=raw_range
    )
    assert figure.axes[1].images[1].get_clim() == pytest.approx(limits)
    assert figure.axes[2].get_ylim() == pytest.approx(limits)
    said = [text for text in texts(raw_range=raw_range) if text.startswith("Raw score")]
    assert said == ["Raw score" if raw_range else "Raw score (colors: range of this slide)"]


def test_ends_of_the_raw_range_are_open_and_those_of_probability_are_not() -> None:
    assert {"≤ -3.00", "≥ 5.00"} <= set(texts(raw_range=(-3.0, 5.0), threshold=1.0))
    shown = texts(probability_of=probability_of)
    assert {"0.00", "1.00"} <= set(shown)
    assert not any("≥" in text for text in shown)


def test_a_slide_without_tissue_and_without_a_range_can_be_drawn() -> None:
    nothing = ScoreMap(np.full((2, 2), np.nan, dtype=np.float32), 0, 0, 160, 0.5)
    assert draw(score_map=nothing, contours=[], threshold=None)
    assert draw(threshold=3.3e38, contours=[])


def probability_of(scores: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(scores, np.float64) / 8


def test_probabilities_are_shown_from_0_to_1_with_the_threshold_as_probability() -> None:
    figure = overview_figure(
        THUMBNAIL, 16.0, SCORES, [], threshold=2.0, title="a", probability_of=probability_of
    )
    assert figure.axes[1].images[1].get_clim() == (0, 1)
    assert "0.25\nthreshold" in texts(probability_of=probability_of)


def test_header_names_slide_score_threshold_and_area() -> None:
    square = box(0, 0, 1000, 1000)  # 500 um x 500 um
    [facts] = [text for text in texts(contours=[square], slide_score=3.456) if "1 contour" in text]
    assert "slide score 3.46" in facts
    assert "threshold 2.00" in facts
    assert "1 contour, 0.25 mm²" in facts
    assert "probability" not in facts
    shown = texts(probability_of=probability_of)
    assert any("threshold 2.00 (probability 0.25)" in text for text in shown)


@pytest.mark.parametrize("dpi", [72, 90, 150])
@pytest.mark.parametrize("shape", [(900, 200), (2000, 4), (200, 900)])
def test_nothing_that_is_written_is_cut_off_or_written_over(
    shape: tuple[int, int], dpi: int
) -> None:
    figure = overview_figure(
        np.zeros((*shape, 3), np.uint8),
        16.0,
        SCORES,
        [box(0, 0, 1000, 1000)],
        threshold=2.0,
        title="TCGA-AA-3562-01Z-00-DX1." * 9,
        slide_score=12345.6,
        probability_of=probability_of,
    )
    figure.set_dpi(dpi)
    figure.draw_without_rendering()
    _, height = figure.bbox.size
    header = [text.get_window_extent() for text in figure.texts]
    assert len(header) >= 2
    panels = [extent for axes in figure.axes if (extent := axes.get_tightbbox()) is not None]
    for extent in (*header, *panels):
        assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1
        assert extent.y1 <= height
    lowest = min(extent.y0 for extent in header)
    assert all(panel.y1 <= lowest for panel in panels)
    for upper, lower in itertools.pairwise(header):
        assert lower.y1 < upper.y0


def test_scale_bar_is_a_round_length_within_the_picture() -> None:
    from matplotlib.patches import Rectangle

    figure = overview_figure(THUMBNAIL, 16.0, SCORES, [], threshold=2.0, title="a")
    assert "200 µm" in texts()  # the picture is 640 um wide
    [bar] = [
        patch
        for patch in figure.axes[0].findobj(Rectangle)
        if patch.get_height() == 0 and patch.get_width() > 1
    ]
    assert bar.get_width() * SCORES.mpp == pytest.approx(200)
    assert "2 mm" in texts(score_map=ScoreMap(SCORES.scores, 0, 0, 160, 5.0))
    # 6000 px and 0.5 um a pixel, rounded: a third is just below 1 mm.
    assert "1 mm" in texts(downsample=np.nextafter(75.0, 0))


@pytest.mark.parametrize("shape", [(100, 100), (900, 30), (30, 900), (2000, 4), (4, 2000), (1, 1)])
def test_every_aspect_ratio_gives_a_readable_picture(shape: tuple[int, int]) -> None:
    picture = decoded(draw(thumbnail=np.zeros((*shape, 3), dtype=np.uint8), contours=[]))
    assert max(picture.shape) < 12 * 60
    assert min(picture.shape[:2]) > 1.2 * 60


@pytest.mark.parametrize(
    "name",
    [
        "cost $5 $x_{",
        "a\nb\t\x00",
        "x" * 500,
        "",
        "\u75c5\u7406 \U0001f52c",
        "\udcff.svs",
        r"\frac",
    ],
)
def test_no_name_of_a_slide_breaks_the_picture(name: str, recwarn: pytest.WarningsRecorder) -> None:
    assert decoded(draw(title=name)).size
    assert not recwarn.list


def test_long_names_keep_both_ends() -> None:
    shown = texts(title="TCGA-AA-3562" + "-" * 200 + "DX1.svs")
    assert any(text.startswith("TCGA-AA") and text.endswith("DX1.svs") for text in shown)


def test_holes_are_drawn() -> None:
    ring = Polygon(
        box(100, 100, 1000, 1500).exterior.coords, [box(300, 300, 700, 900).exterior.coords]
    )
    figure = overview_figure(THUMBNAIL, 16.0, SCORES, [ring], threshold=2.0, title="a")
    for axes in figure.axes[:2]:
        for lines in axes.collections:
            assert isinstance(lines, LineCollection)
            assert len(lines.get_segments()) == 2


def test_drawing_leaves_pyplot_alone() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from qprd.predictions import ScoreMap;"
        "from qprd.review.figures import figure_png;"
        "from qprd.review.overview import overview_figure;"
        "assert 'matplotlib' not in sys.modules;"
        "figure_png(overview_figure(np.zeros((9, 9, 3), np.uint8), 1.0,"
        " ScoreMap(np.ones((3, 3), np.float32), 0, 0, 3, 1), [], threshold=1, title='a'));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_real_slide_can_be_drawn(shared_data: Path) -> None:
    import openslide

    with openslide.OpenSlide(shared_data / "slides" / "colon_2.tif") as slide:
        thumbnail = np.asarray(slide.get_thumbnail((800, 800)).convert("RGB"))
        downsample = slide.dimensions[0] / thumbnail.shape[1]
    gray = thumbnail.mean(axis=2)
    darkness = (255 - gray[:780, :180].reshape(78, 10, 18, 10).mean(axis=(1, 3))) / 60
    scores = ScoreMap(darkness.astype(np.float32), 0, 0, 10 * downsample, 0.5015)
    found = contours(scores, 1.5, min_area_um2=0, min_hole_um2=0, tolerance_um=5)
    assert found
    figure = overview_figure(
        thumbnail, downsample, scores, found, threshold=1.5, title="colon_2.tif"
    )
    picture = decoded(figure_png(figure))
    assert picture.std() > 20


def test_what_was_not_scored_is_hatched_with_a_legend_if_it_is_much() -> None:
    from matplotlib.contour import QuadContourSet

    mask = np.zeros((60, 40), dtype=bool)
    mask[:10] = True
    much = Unscored({"pen": 0.1, "border": 5.0}, 0.4, mask, 32.0)
    little = Unscored({"pen": 0.01}, 0.4, mask, 32.0)
    for unscored, shown in ((much, True), (little, False), (None, False)):
        figure = overview_figure(
            THUMBNAIL, 16.0, SCORES, [], threshold=2.0, title="a", unscored=unscored
        )
        heatmap = figure.axes[1]
        hatched = [one for one in heatmap.collections if isinstance(one, QuadContourSet)]
        assert len(hatched) == shown
        if not shown:
            assert heatmap.get_legend() is None
        else:
            extent = hatched[0].get_paths()[0].get_extents()
            # The middle of the pixels is hatched, and the rim of half a pixel drawn past them.
            assert extent.extents == pytest.approx((-16, -16, 1296, 304 + 16), abs=33)
            legend = heatmap.get_legend()
            assert legend is not None
            (text,) = legend.get_texts()
            assert text.get_text() == "not scored: 0.1 mm²"
            assert heatmap.get_xlim() == (0, 80 * 16)
