"""The report: one page from real run folders, checked as text and in a browser."""

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chromium import BINARY, Chromium
from eisnn.analysis import report
from eisnn.analysis.dynamics import read_dynamics
from eisnn.analysis.report import MOST_RUNS, write_report
from eisnn.cli import main
from eisnn.training.evaluate import evaluate, write
from eisnn.training.recipe import load_recipe
from eisnn.training.trained import load_trained

SMALL = ["model.name=mlp4", "model.width=0.1", "training.epochs=2", "data.train_samples=200"]
HOSTILE = "</script><script>hacked=1</script><!-- <b>\"'&amp;"
VOID = {"meta", "link", "input", "br", "img", "hr"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of a comparison, the first of which is evaluated too."""
    from eisnn.training.run import compare

    folder = tmp_path_factory.mktemp("runs") / "small"
    compare(load_recipe("digits", SMALL), folder, progress=False)
    write(evaluate(load_trained(folder / "ei")), folder / "ei")
    return folder


@pytest.fixture
def run(compared: Path, tmp_path: Path) -> Path:
    """A copy of the E-I run."""
    return shutil.copytree(compared / "ei", tmp_path / "run")


def page(*folders: Path) -> str:
    path = folders[0] / "report.html"
    write_report(folders, path)
    return path.read_text()


def embedded(text: str) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def runs_of(*folders: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = embedded(page(*folders))["runs"]
    return runs


def change(path: Path, edit: Callable[[Any], None]) -> None:
    """Edit a JSON file, or every line of a file of JSON lines."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    records = [json.loads(line) for line in lines]
    for record in records:
        edit(record)
    path.write_text("\n".join(map(json.dumps, records)) + "\n")


class Tags(HTMLParser):
    """Finds what a page refers to, and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attributes if k in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_balanced_and_refers_to_nothing_outside(compared: Path) -> None:
    text = page(compared)
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert {reference[:1] for reference in tags.references} <= {"#", "d"}
    assert all(r.startswith(("#", "data:")) for r in tags.references)
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_the_page_holds_the_numbers_of_the_run(run: Path) -> None:
    (shown,) = runs_of(run)
    summary = json.loads((run / "summary.json").read_text())
    assert shown["accuracy"] == summary["test_accuracy"]
    assert shown["kept"] == summary["epoch"]
    assert shown["facts"]["Epochs trained"] == "2 of 2"
    assert shown["facts"]["Parameters"] == f"{summary['parameters']:,}"
    assert shown["metrics"]["epoch"] == [1, 2]
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("val_loss")
    written = [float(row.split(",")[column]) for row in rows]
    assert shown["metrics"]["val_loss"] == pytest.approx(written, rel=1e-4)
    assert shown["config"]["model.name"] == "mlp4"
    assert shown["config"]["version of torch"] == summary["versions"]["torch"]
    assert not [key for key in shown["config"] if key.startswith("twins")]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert shown["confusion"]["counts"] == evaluation["confusion"]
    assert shown["notes"] == []


def test_the_page_holds_what_the_layers_did(run: Path) -> None:
    (shown,) = runs_of(run)
    written = read_dynamics(run)
    assert [record["epoch"] for record in shown["records"]] == [0, 1, 2]
    assert shown["names"]["layers"] == [layer["name"] for layer in written[0]["layers"]]
    assert shown["names"]["gradients"] == [layer["name"] for layer in written[0]["gradients"]]
    for record, full in zip(shown["records"], written, strict=True):
        for norms, layer in zip(record["gradients"], full["gradients"], strict=True):
            assert {"name": layer["name"], **norms} == layer
        for here, there in zip(record["layers"], full["layers"], strict=True):
            for key in ("rate", "silent", "balance", "correlation", "bimodality", "parameters"):
                assert here[key] == there[key], key
            for name, current in there["currents"].items():
                code = here["currents"][name]
                heights = base64.b64decode(code["density"])
                peak = max(current["density"])
                assert code["mean"] == current["mean"]
                assert code["edges"] == current["edges"]
                decoded = [peak * height / 255 for height in heights]
                assert decoded == pytest.approx(current["density"], abs=peak / 255)


def test_a_comparison_is_shown_side_by_side_in_its_order(compared: Path) -> None:
    shown = runs_of(compared)
    assert [run["name"] for run in shown] == ["E-I circuit", "BatchNorm", "no normalisation"]
    assert [bool(run["confusion"]) for run in shown] == [True, False, False]
    assert shown[1]["evaluate"] == f"eisnn evaluate {compared / 'bn'}"
    assert len({tuple(run["facts"]) for run in shown}) == 1
    assert runs_of(compared.parent) == shown
    assert len(runs_of(compared / "bn", compared, compared / "ei")) == 3
    assert runs_of(compared / "bn", compared / "ei")[0]["name"] == "BatchNorm"


def test_runs_of_the_same_norm_go_by_their_folders(compared: Path, tmp_path: Path) -> None:
    for name in ("one/ei", "two/ei"):
        shutil.copytree(compared / "ei", tmp_path / name)
    assert [run["name"] for run in runs_of(tmp_path)] == ["one/ei", "two/ei"]
    for number in range(MOST_RUNS - 1):
        shutil.copytree(compared / "ei", tmp_path / f"run{number}")
    with pytest.raises(ValueError, match=f"at most {MOST_RUNS} runs .* and these are 9. Name"):
        page(tmp_path)


def test_text_from_run_folders_stays_text(run: Path) -> None:
    change(run / "evaluation.json", lambda e: e["classes"][3].update({"class": HOSTILE}))
    change(run / "dynamics.jsonl", lambda r: r["layers"][0].update(name=HOSTILE))
    config = (run / "config.yaml").read_text().replace("name: mlp4", f"name: {json.dumps(HOSTILE)}")
    (run / "config.yaml").write_text(config)
    text = page(run)
    (shown,) = embedded(text)["runs"]
    assert shown["names"]["layers"][0] == HOSTILE
    assert shown["confusion"]["classes"][3] == HOSTILE
    assert shown["config"]["model.name"] == HOSTILE
    assert text.count("</script>") == 2
    assert "<b>" not in text
    tags = Tags()
    tags.feed(text)
    assert tags.open == []


def test_missing_pieces_are_told(run: Path) -> None:
    (run / "dynamics.jsonl").unlink()
    (run / "evaluation.json").unlink()
    (shown,) = runs_of(run)
    assert shown["records"] == []
    assert shown["confusion"] is None
    assert "has no dynamics.jsonl" in shown["notes"][0]
    assert "Train again to record it" in shown["notes"][0]
    (run / "summary.json").unlink()
    (run / "metrics.csv").unlink()
    (shown,) = runs_of(run)
    assert (shown["accuracy"], shown["metrics"]) == (None, {})
    assert f"eisnn train --resume {run}" in shown["notes"][0]


def test_an_epoch_chosen_on_the_test_set_is_told(run: Path) -> None:
    change(run / "summary.json", lambda summary: summary.update(selected_on_test=True))
    assert "chosen on the test set" in runs_of(run)[0]["notes"][0]


def test_a_line_that_was_cut_off_is_left_out_and_what_is_not_finite_too(run: Path) -> None:
    dynamics = run / "dynamics.jsonl"
    dynamics.write_text(dynamics.read_text()[:-30])
    metrics = run / "metrics.csv"
    header, first, second = metrics.read_text().splitlines()
    values = second.split(",")
    values[header.split(",").index("train_loss")] = "nan"
    metrics.write_text("\n".join([header, first, ",".join(values)]))
    (shown,) = runs_of(run)
    assert [record["epoch"] for record in shown["records"]] == [0, 1]
    assert shown["metrics"]["train_loss"][1] is None


def damage(name: str) -> Iterator[tuple[str, Callable[[Path], object]]]:
    yield name, lambda path: path.write_text("{")
    yield name, lambda path: path.write_text("[1, 2]\n[3]\n")


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    *damage("config.yaml"),
    *damage("summary.json"),
    *damage("evaluation.json"),
    ("metrics.csv", lambda path: path.write_text("epoch,lr\n1,2\n")),
    ("metrics.csv", lambda path: path.write_text("epoch,train_loss,train_accuracy\n1,x,0\n")),
    ("dynamics.jsonl", lambda path: path.write_text("{\n" + path.read_text())),
    ("dynamics.jsonl", lambda path: path.write_text('{"epoch": 0}\n')),
    ("dynamics.jsonl", lambda path: change(path, lambda r: r["layers"][1].pop("rate"))),
    (
        "dynamics.jsonl",
        lambda path: change(path, lambda r: r["layers"][0].update(name=str(r["epoch"]))),
    ),
    (
        "dynamics.jsonl",
        lambda path: change(path, lambda r: r["layers"][0]["currents"]["v"]["density"].pop()),
    ),
    ("evaluation.json", lambda path: change(path, lambda e: e["confusion"].pop())),
    ("summary.json", lambda path: change(path, lambda s: s.pop("seconds"))),
]


@pytest.mark.parametrize(("name", "harm"), DAMAGE)
def test_damaged_files_are_named(name: str, harm: Callable[[Path], object], run: Path) -> None:
    harm(run / name)
    with pytest.raises(ValueError, match=f"{run / name} is damaged or of another version"):
        page(run)


def test_long_runs_are_thinned_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_CHARACTERS", 300_000)
    record = read_dynamics(run)[1]
    lines = (json.dumps({**record, "epoch": epoch}) for epoch in range(301))
    (run / "dynamics.jsonl").write_text("\n".join(lines) + "\n")
    text = page(run)
    assert len(text) < 1.2 * 300_000
    (shown,) = embedded(text)["runs"]
    kept = [record["epoch"] for record in shown["records"]]
    assert 30 < len(kept) < 301
    assert kept[:10] == list(range(10))
    assert kept[-1] == 300
    steps = {b - a for a, b in pairwise(kept[10:])}
    assert max(steps) - min(steps) <= 1
    assert f"{len(kept)} of 301 recorded epochs" in shown["notes"][0]


def test_the_command(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(compared)]) == 0
    assert capsys.readouterr().out == f"3 runs in one page: {compared / 'report.html'}\n"
    out = tmp_path / "new" / "page.html"
    assert main(["report", str(compared / "bn"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"1 run in one page: {out}\n"
    assert "BatchNorm" in out.read_text()
    assert main(["report", str(tmp_path / "new")]) == 2
    assert "new holds no run: there is no config.yaml" in capsys.readouterr().err


# ---------------------------------------------------------------- in a browser

in_browser = pytest.mark.skipif(BINARY is None, reason="there is no Chromium on this machine")

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
AREA = "document.querySelector('.area').getAttribute('d')"
SHOWN = "document.getElementById('shown').textContent"
CONTRAST = """
(() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const v = c[i] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const hidden = node.matches("script, style, noscript, option, #tip");
    if (!own || hidden || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    let under = node;
    const behind = () => rgb(getComputedStyle(under).backgroundColor);
    while (under.parentElement && behind()[3] < 255) under = under.parentElement;
    const back = light(behind());
    const front = light(rgb(node.ownerSVGElement ? style.fill : style.color));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} ${node.textContent} ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""
"""Texts whose contrast to what is behind them is below 4.5, the least of WCAG 2 AA."""
UNNAMED = """
[...document.querySelectorAll("svg, input, select, button, [role=region], nav")].filter((node) =>
  !(node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim())
  || (node.tagName === "svg" && node.getAttribute("role") !== "img")).map((node) => node.outerHTML)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.fixture
def window(browser: Chromium) -> Iterator[Chromium]:
    """A window whose page must neither complain nor ask for anything but itself."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.screen(1280, 900)
    yield browser
    assert browser.evaluate("1 + 1") == 2  # receives what is still under way
    assert browser.complaints == []
    assert {address.partition(":")[0] for address in browser.requests} == {"file"}
    assert len({address.partition("#")[0] for address in browser.requests}) == 1


@pytest.fixture(scope="module")
def address(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report([compared], path)
    return path.as_uri()


@in_browser
def test_every_section_is_drawn(window: Chromium, address: str) -> None:
    window.open(address)
    sections = window.evaluate("[...document.querySelectorAll('h2')].map((h) => h.textContent)")
    assert sections == [
        *("Summary", "Curves", "Firing rates", "E-I balance", "Distributions", "Gradient flow"),
        *("Parameters", "Confusion matrix", "Configuration"),
    ]
    assert window.evaluate("document.querySelectorAll('.area').length") == 4 + 3 + 3
    assert window.evaluate("document.querySelectorAll('.confusion td').length") == 100
    assert "No values." not in window.evaluate("document.body.innerText")
    assert window.evaluate("[...document.querySelectorAll('svg *')].filter((e) => "
                           "[...e.attributes].some((a) => /NaN|undefined|Infinity/.test(a.value)))"
                           ".map((e) => e.outerHTML)") == []  # fmt: skip


@in_browser
def test_the_slider_moves_by_address_and_by_keyboard(window: Chromium, address: str) -> None:
    window.open(f"{address}#epoch=1")
    assert window.evaluate(SHOWN) == "1 of 2"
    assert window.evaluate("document.getElementById('epoch').value") == "1"
    first = window.evaluate(AREA)
    window.evaluate("document.getElementById('epoch').focus()")
    window.press("ArrowRight", 39)
    assert window.evaluate(SHOWN) == "2 of 2"
    assert window.evaluate(AREA) != first
    assert window.evaluate("location.hash") == "#epoch=2"
    spoken = "document.getElementById('epoch').getAttribute('aria-valuetext')"
    assert window.evaluate(spoken) == "epoch 2"
    headings = "[...document.querySelectorAll('#rates h3')].map((h) => h.textContent)"
    assert window.evaluate(headings)[0] == "E-I circuit epoch 2"
    window.press("Home", 36)
    assert window.evaluate(SHOWN) == "0 of 2"
    window.evaluate("location.hash = '#epoch=1'; new Promise((done) => setTimeout(done, 50))")
    assert window.evaluate(SHOWN) == "1 of 2"
    assert window.evaluate(AREA) == first


@in_browser
def test_another_quantity_and_the_numbers_of_a_chart(window: Chromium, address: str) -> None:
    window.open(address)
    choose = "{const s = document.getElementById('%s'); s.value = '%s'; s.dispatchEvent(new Event('change'))}"  # noqa: E501
    window.evaluate(choose % ("quantity", "i_div"))
    assert window.evaluate("document.querySelectorAll('#distributions .card').length") == 1
    before = window.evaluate(AREA)
    assert before
    window.evaluate("show(0)")
    assert window.evaluate(AREA) != before
    window.evaluate(choose % ("statistic", "zero"))
    assert "0 %" in window.evaluate("document.querySelector('#parameters svg').textContent")
    window.evaluate("document.querySelector('#curves details').open = true")
    rows = window.evaluate(
        "new Promise((done) => setTimeout(done, 50)).then(() => "
        "[...document.querySelectorAll('#curves tr')].map((row) => row.children.length))"
    )
    assert rows == [7, 7, 7]  # a header and two epochs, of two curves for each run


@in_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_readable_and_accessible(window: Chromium, address: str, width: int, dark: bool) -> None:
    window.screen(width, 844, dark=dark, phone=width < 500)
    window.open(address)
    assert window.evaluate(OVERFLOW) == 0
    for epoch in (0, 2):
        window.evaluate(f"show({epoch})")
        assert window.evaluate(CONTRAST) == []
    assert window.evaluate(UNNAMED) == []
    background = "getComputedStyle(document.body).backgroundColor"
    before = window.evaluate(background)
    window.evaluate("document.getElementById('theme').click()")
    assert window.evaluate(background) != before
    assert window.evaluate(CONTRAST) == []


@in_browser
def test_the_value_under_the_pointer_is_told(window: Chromium, address: str) -> None:
    window.open(address)
    window.evaluate("document.querySelector('#curves svg').scrollIntoView({ block: 'center' })")
    x, y = window.evaluate(
        "(({ left, top, width, height }) => [left + width * 0.9, top + height / 2])"
        "(document.querySelector('#curves svg').getBoundingClientRect())"
    )
    window.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tip = window.evaluate("document.getElementById('tip').textContent")
    assert re.fullmatch(r"(E-I circuit|BatchNorm|no normalisation), .*, epoch 2: [\d.]+", tip)


@in_browser
def test_hostile_and_missing_in_a_browser(window: Chromium, run: Path) -> None:
    change(run / "evaluation.json", lambda e: e["classes"][3].update({"class": HOSTILE}))
    change(run / "dynamics.jsonl", lambda r: r["layers"][0].update(name=HOSTILE))
    config = (run / "config.yaml").read_text().replace("name: mlp4", f"name: {json.dumps(HOSTILE)}")
    (run / "config.yaml").write_text(config)
    page(run)
    window.open((run / "report.html").as_uri())
    assert window.evaluate("typeof hacked") == "undefined"
    assert window.evaluate("document.querySelector('#rates tbody th').textContent") == HOSTILE
    assert window.evaluate("document.title") == f"{HOSTILE} on digits"
    for name in ("dynamics.jsonl", "evaluation.json", "summary.json", "metrics.csv"):
        (run / name).unlink()
    page(run)
    window.open((run / "report.html").as_uri())
    shown = window.evaluate("document.getElementById('content').textContent")
    assert "not finished" in shown
    assert "No epoch is finished yet" in shown
    assert "Not evaluated yet. Run eisnn evaluate" in shown
    assert "has no dynamics.jsonl" in shown
    assert window.evaluate("document.getElementById('epochs').hidden")
