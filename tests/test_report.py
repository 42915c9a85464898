"""The report of a training run: what it says, that it is well made, and that a browser shows it without a network."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from mrcnn.cli import main
from mrcnn.config import LOSS_NAMES
from mrcnn.data.survey import survey
from mrcnn.judging import Judge
from mrcnn.report import ReportError, read_run, write_report
from mrcnn.report.charts import bar_chart, line_chart, number_text, ticks
from mrcnn.report.classes import class_table, confusion_table
from mrcnn.run_record import data_figures, read_record, write_record
from tests.browser import Browser, find
from tests.shapes import Shapes, ShapesConfig

EPOCHS = 6
NAMES = ["BG", "square", "disk <&\" 'odd'>", "triangle"]
# Elements that have no end tag.
VOID = {"meta", "img", "br"}


def evaluation(dataset):
    """A record's `best`, of predictions that are worse from image to image."""
    watcher = Judge(dataset, NAMES, min_score=0.5)
    for image_id in map(int, dataset.image_ids):
        masks, class_ids = dataset.load_mask(image_id)
        kept = masks.copy()
        kept[:, : image_id * 4] = False
        found = {"masks": kept, "class_ids": class_ids, "scores": np.full(len(class_ids), 0.9)}
        watcher(image_id, dataset.load_image(image_id), masks, class_ids, found)
    figures = {
        "ap": 0.5, "ap50": 0.75, "ap75": None, "ap_small": None, "ap_medium": None, "ap_large": None, "recall": 0.6,
        "per_class": dict(zip(NAMES[1:], (0.7, 0.3, None), strict=True)),
        "per_class50": dict(zip(NAMES[1:], (0.9, 0.6, None), strict=True)),
    }  # fmt: skip
    counts = watcher.confusion.sum(axis=1)[1:].tolist()
    result = {
        "image_count": 10, "annotation_count": sum(counts), "detection_count": 20, "mask": figures, "box": figures,
        "annotations_per_class": dict(zip(NAMES[1:], counts, strict=True)),
    }  # fmt: skip
    return {
        "epoch": 4, "seconds": 2.0, "images_of": 10, "result": result, "class_names": NAMES, "min_score": 0.5,
        "confusion": watcher.confusion, "qualities": [mark["quality"] for mark in watcher.marks], **watcher.extremes(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder as training leaves it, without the weights."""
    folder = tmp_path_factory.mktemp("logs") / "shapes20260102T0304"
    folder.mkdir()
    columns = ["loss", *LOSS_NAMES]
    columns += [f"val_{name}" for name in columns]
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["epoch", *columns, "val_mask_ap", "val_mask_ap50", "val_mask_ap75", "val_box_ap"]
        )
        writer.writeheader()
        for epoch in range(1, EPOCHS + 1):
            losses = {name: f"{(n + 1) / epoch:.6g}" for n, name in enumerate(columns)}
            # Measured every second epoch.
            ap = {} if epoch % 2 else {"val_mask_ap": epoch / 12, "val_mask_ap50": epoch / 8, "val_box_ap": epoch / 11}
            writer.writerow({"epoch": epoch, **losses, **ap})
    dataset = Shapes(10, size=64)
    seen = data_figures(survey(dataset, ShapesConfig()))
    write_record(folder, {"data": {"train": seen, "validation": seen}, "epochs": [], "best": evaluation(dataset)})
    return folder


class Strict(HTMLParser):
    """Complains of tags that do not match; collects what a page could ask the network for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        told = dict(attributes)
        self.ids += [told["id"]] if "id" in told else []
        self.addresses += [value for name, value in told.items() if name in ("src", "href", "srcset", "data", "action")]
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert tag != "img" or told["alt"]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> does not fit at {self.getpos()}"


def test_the_page_is_whole_and_asks_for_nothing(run_folder):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    text = path.read_text(encoding="utf-8")
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    assert {"losses", "precision", "classes", "confusion", "images", "data", "numbers"} <= set(parser.ids)
    assert len(parser.addresses) == 8  # the best four and the worst four images
    assert all(address.startswith("data:image/jpeg;base64,") for address in parser.addresses)
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style and "@import" not in style
    charts = re.findall(r'<svg class="chart.*?</svg>', text, re.S)
    assert len(charts) == 1 + 5 + 1 + 1 + 2  # losses, AP, marks, data
    for chart in charts:
        picture = ET.fromstring(chart)
        assert picture.get("role") == "img" and picture.get("aria-label") and picture.find("title").text
    assert "disk &lt;&amp;&quot; &#x27;odd&#x27;&gt;" in text and "disk <" not in text
    for told in ("<b>0.500</b>", "<b>0.750</b>", "best: epoch 4", "<b>-</b>"):
        assert told in text, told


def test_lines_lie_where_their_values_are():
    chart = ET.fromstring(line_chart("t", [("a", [1, 2, 3], [0, 10, None]), ("b", [1, 3], [5, 10])], marked=2))
    first, second = (path.get("d") for path in chart.iter("path"))
    numbers = [float(v) for v in re.findall(r"[-\d.]+", first)]
    (x1, y1, x2, y2), (x3, y3, x4, y4) = numbers, [float(v) for v in re.findall(r"[-\d.]+", second)]
    assert x1 == x3 and x2 == pytest.approx((x3 + x4) / 2, abs=0.1)
    assert y2 == y4 and y3 == pytest.approx((y1 + y4) / 2, abs=0.1) and y1 > y2
    marked = next(line for line in chart.iter("line") if line.get("class") == "marked")
    assert float(marked.get("x1")) == pytest.approx(x2, abs=0.1)
    assert [circle.find("title").text for circle in chart.iter("circle")] == [
        "a, epoch 1: 0", "a, epoch 2: 10", "b, epoch 1: 5", "b, epoch 3: 10",
    ]  # fmt: skip
    assert line_chart("t", [("a", [1, 2], [None, float("nan")])]) == ""


def test_bars_are_as_high_as_their_values():
    chart = ET.fromstring(bar_chart("t", ["p", "q"], [("a", [0, 1], [2, 8]), ("b", [0, 1], [4, None])], x_label="x"))
    heights = [float(rect.get("height")) for rect in chart.iter("rect")]
    assert heights == pytest.approx(
        [heights[1] / 4, heights[1], heights[1] / 2, 0], abs=0.2
    ) or heights == pytest.approx([heights[2] / 4, heights[2] / 2, heights[2], 0], abs=0.2)
    assert bar_chart("t", ["p"], [("a", [0], [0])], x_label="x") == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1, 6, [1, 2, 3, 4, 5, 6]),
        (0.013, 0.019, [0.012, 0.014, 0.016, 0.018, 0.02]),
        (5, 5, [5, 6, 7, 8, 9, 10]),
        (0, 0, [0, 0.2]),
        (-3, 1e5, None),
    ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 8
    if low != high and expected is not None:
        assert found == pytest.approx(expected)


def test_numbers_are_written_as_people_write_them():
    assert [number_text(v) for v in (0, 3, 12345.0, 0.25, 1 / 3, 0.00001234)] == [
        "0", "3", "12,345", "0.25", "0.3333", "1.2e-05",
    ]  # fmt: skip


def cells(table, row):
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)
    return [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", rows[row], re.S)]


def test_the_classes_come_worst_first(run_folder):
    table = class_table(read_record(run_folder)["best"]["result"])
    assert [cells(table, row)[0] for row in (1, 2, 3)] == [
        "disk &lt;&amp;&quot; &#x27;odd&#x27;&gt;", "square", "triangle",
    ]  # fmt: skip
    assert cells(table, 2)[2:] == ["", "0.700", "0.900", "0.700", "0.900"]
    assert cells(table, 3)[3:] == ["-", "-", "-", "-"]


def test_the_confusion_matrix_has_missed_and_nothing_at_its_ends():
    best = {"confusion": [[0, 3, 1], [2, 10, 5], [0, 4, 1]], "class_names": ["BG", "a", "b"], "min_score": 0.7}
    table = confusion_table(best)
    assert cells(table, 0) == ["", "a", "b", "missed"]
    assert cells(table, 1) == ["a", "10", "5", "2"]
    assert cells(table, 2) == ["b", "4", "1", "0"]
    assert cells(table, 3) == ["nothing there", "3", "1", ""]
    assert "--v:59" in table  # 10 of 17


def test_of_many_classes_those_with_the_most_errors_are_shown(rng):
    count = 60
    matrix = np.diag(rng.integers(1, 9, count + 1))
    matrix[0, 0] = 0
    troubled = rng.permutation(np.arange(1, count + 1))[:24]
    for k in troubled:
        matrix[k, 0] += 5
    table = confusion_table({"confusion": matrix.tolist(), "class_names": ["BG", *(f"c{k}" for k in range(1, 61))],
                             "min_score": 0.5})  # fmt: skip
    head = cells(table, 0)
    assert head[1:] == [*(f"c{k}" for k in sorted(troubled)), "others", "missed"]
    numbers = [int(v.replace(",", "")) for row in range(1, 27) for v in cells(table, row)[1:] if v]
    assert sum(numbers) == matrix.sum()


def test_a_run_without_evaluation_tells_what_to_do(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n1,2.5\n2,1.5\n")
    text = write_report(tmp_path, tmp_path / "own.html").read_text()
    assert "EVALUATE_EVERY" in text and 'id="losses"' in text and 'id="confusion"' not in text
    assert text.count('<svg class="chart') == 1


def test_the_command_writes_the_report_and_says_where(run_folder, tmp_path, capsys):
    assert main(["report", str(run_folder), "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"Report: {tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_what_is_no_run_is_told(run_folder, tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert main(["report", str(run_folder.parent)]) == 1
    assert f"has no history.csv. Its folders that are: {run_folder.name}." in capsys.readouterr().err
    (tmp_path / "history.csv").write_text("no,such\n1,2\n")
    with pytest.raises(ReportError, match="not as training writes it"):
        read_run(tmp_path)
    (tmp_path / "history.csv").write_text("epoch,loss\n")
    with pytest.raises(ReportError, match="no epochs"):
        read_run(tmp_path)


# What a reader's eyes meet: luminance by WCAG 2.
CONTRAST = """(() => {
  const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
  const light = color => {
    context.fillStyle = '#000'; context.fillRect(0, 0, 1, 1); context.fillStyle = color; context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(
      v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const found = {};
  for (const [name, selector, property, behind] of [
    ['text', 'section p', 'color', 'section'], ['caption', 'figcaption', 'color', 'section'],
    ['ticks', 'svg.chart text', 'fill', 'section'], ['line 1', 'svg.chart .l1', 'stroke', 'section'],
    ['line 2', 'svg.chart .l2', 'stroke', 'section'], ['line 3', '.l3', 'stroke', 'section'],
  ]) {
    const own = getComputedStyle(document.querySelector(selector))[property];
    found[name] = ratio(light(own), light(getComputedStyle(document.querySelector(behind)).backgroundColor));
  }
  for (const cell of document.querySelectorAll('table.confusion td[style]')) {
    cell.style.setProperty('--v', 100);  // as dark as can be
    const style = getComputedStyle(cell);
    found[cell.className || 'diagonal'] = ratio(light(style.color), light(style.backgroundColor));
  }
  return found;
})()"""


def test_a_browser_shows_it_without_a_network(run_folder):
    program = find()
    if program is None:
        pytest.skip("no Chrome or Chromium here: `make setup-browser` fetches one, MRCNN_TEST_BROWSER names one")
    path = write_report(run_folder)
    pages = {}
    with Browser(program) as browser:
        browser.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1,
                     uploadThroughput=-1)  # fmt: skip
        for mode, width in (("light", 1200), ("dark", 380)):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": mode}])
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
            )
            browser.open(path)
            sizes = browser.ask(
                "[...document.querySelectorAll('svg.chart')].map(e => {const r = e.getBoundingClientRect();"
                " return [e.getAttribute('aria-label'), r.width, r.height]})"
            )
            assert len(sizes) == 10
            assert all(wide >= 300 and high >= 80 for _, wide, high in sizes), sizes
            pictures = browser.ask("[...document.images].map(e => [e.complete, e.naturalWidth, e.clientWidth])")
            assert len(pictures) == 8 and all(done and own > 400 and shown > 200 for done, own, shown in pictures)
            assert browser.ask("document.documentElement.scrollWidth") <= width
            assert browser.ask("document.querySelectorAll('#confusion-matrix td').length") == 4 * 4 + 1
            told = browser.ask("document.querySelector('header').innerText")
            assert "Training of shapes20260102T0304" in told and "best: epoch 4" in told
            contrast = browser.ask(CONTRAST)
            least = {name: 3.0 if name.startswith("line") else 4.5 for name in contrast}
            assert all(contrast[name] >= least[name] for name in contrast), (mode, contrast)
            pages[mode] = browser.ask("getComputedStyle(document.body).backgroundColor")
        assert {re.match(r"\w+", address)[0] for address in browser.requests} == {"file", "data"}
        assert len({address for address in browser.requests if address.startswith("file")}) == 1
    assert pages["light"] != pages["dark"]
