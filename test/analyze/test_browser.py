"""The page in a real browser: Chromium without a screen and without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from synthetic_runs import make_odd_runs, make_run, make_runs

from ck_mlperf.analyze.page import FILTERS, build_page
from ck_mlperf.analyze.runs import Run

from ..builders.waiting import wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
PHONE, DESKTOP = 360, 1280  # CSS px
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which a container's root cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser with a profile of its own."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("NOT RUN: needs chromium and chromedriver; `sh .ci/setup.sh install-browser`")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    chrome.set_script_timeout(600)  # nothing but a hang takes so long
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of many points, and of odd ones."""
    networks = ("resnet50", "tensorrt")
    some = [run for run in make_runs(60, repetitions=2) if (run.model, run.engine) == networks]
    return write_page(tmp_path_factory, [*some, *make_odd_runs()])


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that has each kind of thing: axe takes long for many."""
    networks = ("resnet50", "tensorrt")
    some = [run for run in make_runs(24, repetitions=2) if (run.model, run.engine) == networks]
    mixed = [make_run(batch=3, loadgen_valid=valid) for valid in (True, False)]
    return write_page(
        tmp_path_factory,
        [*(run for run in some if run.precision != "fp16"), *mixed, *make_odd_runs()],
    )


def write_page(tmp_path_factory: pytest.TempPathFactory, runs: list[Run]) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(build_page(runs, NOW))
    return path


@pytest.fixture
def browse(chrome):
    """browse(page or address, width, theme): the browser, with the page in it.

    hurry: by how much the page's timers run faster than they should.
    """

    def open_page(
        page: Path | str, width: int = DESKTOP, theme: str = "light", hurry: int = 1
    ) -> Chrome:
        chrome.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE},
        )
        feature = {"name": "prefers-color-scheme", "value": theme}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        chrome.get("about:blank")
        chrome.get_log("browser")  # of another test
        clock = (
            "const wait = window.setTimeout;"
            f"window.setTimeout = (act, ms, ...more) => wait(act, ms / {hurry}, ...more);"
        )
        script = chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": clock})
        chrome.get(page if isinstance(page, str) else page.as_uri())
        chrome.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
        return chrome

    return open_page


def list_shown(browser: Chrome) -> list[str]:
    """The ids of the points in the table that are shown."""
    return browser.execute_script(
        "return [...document.querySelectorAll('tbody.point')]"
        ".filter((one) => one.checkVisibility()).map((one) => one.id)"
    )


def list_marked(browser: Chrome) -> set[str]:
    """The ids of the points that a marker shows in a plot."""
    return set(
        browser.execute_script(
            "return [...document.querySelectorAll('use[data-points]')]"
            ".filter((one) => one.getClientRects().length)"
            ".map((one) => one.dataset.points)"
        )
    )


def read_text(browser: Chrome, name: str) -> str:
    """An element's text, in one call: the page may replace the element at any time."""
    return browser.execute_script(f"return document.getElementById('{name}').innerText")


def choose(browser: Chrome, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", f"filter-{name}")).select_by_visible_text(value)


@pytest.mark.parametrize(("width", "theme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_it_loads_fits_and_can_be_read(browse, small_page, width, theme):
    from axe_core_python.selenium import Axe

    browser = browse(small_page, width, theme)
    assert browser.get_log("browser") == []  # what the page's policy forbids is there, too
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    browser.execute_script(
        "for (const one of document.querySelectorAll('details')) one.open = true"
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    shades = browser.execute_script(
        "const of = (element, name) => getComputedStyle(element)[name].match(/\\d+/g).map(Number);"
        "const body = document.body, line = document.querySelector('g[data-points] path[stroke]');"
        "return [of(body, 'backgroundColor'), of(body, 'color'), of(line, 'stroke')]"
    )
    ground, ink, line = map(sum, shades)
    assert (ground > 700 and ink < 150) if theme == "light" else (ground < 100 and ink > 650)
    assert abs(ground - line) > 150
    # Contrast and labels among much else. What it says of a rule is in `nodes`.
    found = Axe().run(browser)
    assert [
        (one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]
    ] == []
    assert "color-contrast" in {one["id"] for one in found["passes"]}


def test_text_in_plots_is_large_enough(browse, page):
    for width, least_px in ((DESKTOP, 11.5), (PHONE, 9.5)):
        heights = browse(page, width).execute_script(
            "return [...document.querySelectorAll('figure svg')].flatMap((svg) => {"
            "  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;"
            "  return [...svg.querySelectorAll('text')]"
            "    .map((text) => parseFloat(text.getAttribute('font-size')) * scale) })"
        )
        assert min(heights) >= least_px


def test_filters(browse, page):
    browser = browse(page)
    everything = list_shown(browser)
    rows = {
        one: browser.execute_script(
            "return {...document.getElementById(arguments[0]).dataset}", one
        )
        for one in everything
    }
    choose(browser, "scenario", "Server")
    choose(browser, "verdict", "VALID")
    expected = [
        one
        for one in everything
        if (rows[one]["scenario"], rows[one]["verdict"]) == ("Server", "VALID")
    ]
    assert 0 < len(expected) < len(everything)
    assert list_shown(browser) == expected
    assert list_marked(browser) == set(expected)
    shown = browser.find_element("id", "shown")
    assert shown.text == f"{len(expected)} of {len(everything)} points"
    titles = [
        figure.text
        for figure in browser.find_elements("css selector", "figure")
        if figure.is_displayed()
    ]
    assert titles
    assert all("Server" in title for title in titles)

    choose(browser, "model", "\u6a21\u578b")  # no such point in Server
    assert list_shown(browser) == []
    assert not any(one.is_displayed() for one in browser.find_elements("css selector", "figure"))
    browser.find_element("css selector", "button[type=reset]").click()
    assert list_shown(browser) == everything


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1920])
def test_nothing_is_wider_than_the_window(browse, small_page, width):
    browser = browse(small_page, width)
    assert browser.execute_script("return document.scrollingElement.scrollWidth <= innerWidth")
    if width < 640:  # scenario, number, latency and verdict are in sight without scrolling
        assert browser.execute_script(
            "return [...document.querySelectorAll('table.cards > tbody > tr:first-child > *')]"
            ".every((one) => one.getBoundingClientRect().right <= innerWidth)"
        )


def test_findings_follow_the_filters(browse, tmp_path):
    page = tmp_path / "page.html"
    rates = {"fp32": 10.0, "fp16": 20.0, "int8": 40.0}
    runs = [make_run(precision=name, samples_per_second=rate) for name, rate in rates.items()]
    page.write_bytes(build_page([*runs, make_run(precision="tf32", loadgen_valid=False)], NOW))
    browser = browse(page)
    for precision, expected in (("all", "int8"), ("fp16", "fp16"), ("tf32", "none of those")):
        choose(browser, "precision", precision)
        assert expected in read_text(browser, "findings")
        assert read_text(browser, "findings").count("Offline") == 1


def test_columns_sort(browse, tmp_path):
    page = tmp_path / "page.html"
    rates = (9.0, 1000.0, 80.0)
    runs = [make_run(batch=n, samples_per_second=rate) for n, rate in enumerate(rates, 1)]
    page.write_bytes(build_page(runs, NOW))
    browser = browse(page)
    button = browser.find_element("xpath", "//button[text()='Samples/s']")
    for expected in (["9", "80", "1,000"], ["1,000", "80", "9"]):
        button.click()
        assert [
            browser.execute_script(
                "return document.getElementById(arguments[0]).rows[0].cells[3].innerText", one
            )
            for one in list_shown(browser)
        ] == expected
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "descending"


def test_a_link_to_a_hidden_point_shows_it(browse, page):
    browser = browse(page)
    link = browser.find_element("css selector", "#findings a")
    target = link.get_attribute("href").split("#")[1]
    scenario = browser.find_element("id", target).get_attribute("data-scenario")
    choose(browser, "scenario", "Server" if scenario != "Server" else "Offline")
    assert target not in list_shown(browser)
    browser.execute_script("location.hash = arguments[0]", target)
    wait_until(lambda: target in list_shown(browser))


def test_keyboard(browse, page):
    from selenium.webdriver import ActionChains, Keys

    browser = browse(page)
    reached = []
    for _ in range(60):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        element = browser.switch_to.active_element
        outline = element.value_of_css_property("outline-style")
        reached.append((element.tag_name, element.get_attribute("id"), outline))
        if element.tag_name == "summary" and "more" in element.find_element(
            "xpath", ".."
        ).get_attribute("id"):
            break
    assert reached[0][0] == "a"  # the link that skips to the points
    assert [name for tag, name, _ in reached if tag == "select"] == [
        f"filter-{name}" for name in FILTERS
    ]
    assert {outline for _, _, outline in reached} == {"solid"}
    assert reached[-1][0] == "summary"
    details = browser.switch_to.active_element.find_element("xpath", "..")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert details.get_property("open")


def test_copy(browse, tmp_path, serve, save_point, record):
    save_point(record)
    browser = browse(serve().url)  # a page that came over HTTP may write to the clipboard
    browser.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    browser.find_element("css selector", "details[id$=more] summary").click()
    browser.find_element("css selector", "tbody.point button.copy").click()
    code = browser.find_element("css selector", "tbody.point code").get_property("textContent")
    assert code.startswith("ck benchmark program:")
    wait_until(lambda: browser.find_element("css selector", "button.copy").text == "Copied")
    copied = browser.execute_async_script(
        "navigator.clipboard.readText().then(arguments[arguments.length - 1])"
    )
    assert copied == code


def test_without_scripts(browse, page):
    browser = browse("about:blank")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        assert not browser.find_element("id", "filters").is_displayed()
        assert not any(
            one.is_displayed() for one in browser.find_elements("css selector", "button.copy")
        )
        points = browser.find_elements("css selector", "tbody.point")
        assert len(points) > 10
        assert all(point.is_displayed() for point in points)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_new_points_appear_without_a_reload(browse, serve, save_point, record):
    record["engine"]["batch"] = 2
    save_point(record)
    server = serve()
    browser = browse(server.url, hurry=50)  # it asks every 2 s
    browser.execute_script("window.isSame = true")
    (first,) = list_shown(browser)
    summary = browser.find_element("css selector", "details[id$=more] summary")
    summary.click()
    choose(browser, "scenario", "MultiStream")
    browser.execute_script("arguments[0].focus()", summary)

    record["engine"]["batch"] = 1  # which goes before
    save_point(record)
    wait_until(lambda: len(list_shown(browser)) == 2)
    assert list_shown(browser)[1] == first
    # Another repetition changes the point that is open, and has the focus.
    record["engine"]["batch"] = 2
    save_point(record)
    wait_until(lambda: "2 repetitions" in read_text(browser, first))
    record["scenario"] = "Offline"
    save_point(record)
    wait_until(lambda: "2 of 3 points" in read_text(browser, "shown"))

    assert browser.execute_script("return window.isSame")
    assert browser.find_element("id", f"{first}-more").get_property("open")
    active = browser.switch_to.active_element
    assert active.tag_name == "summary"
    assert active.find_element("xpath", "..").get_attribute("id") == f"{first}-more"
    assert browser.find_element("id", "filter-scenario").get_property("value") == "MultiStream"
    values = browser.execute_script(
        "return [...document.getElementById('filter-scenario').options].map((one) => one.text)"
    )
    assert values == ["all", "MultiStream", "Offline"]
    marked = list_marked(browser)
    assert marked == set(list_shown(browser))
    assert browser.get_log("browser") == []

    server.stop()
    status = browser.find_element("id", "live")
    wait_until(lambda: status.text == "The server does not answer: this is what it last said.")
    assert len(list_shown(browser)) == 2


def test_a_filter_takes_time_in_proportion_to_the_points(browse, tmp_path):
    """A thousand points against a hundred of them: 10 if linear, 100 if quadratic."""
    least_ms = {}
    for batches in (17, 167):
        page = tmp_path / f"{batches}.html"
        page.write_bytes(build_page(make_many_runs(batches), NOW))
        browser = browse(page)
        least_ms[batches] = browser.execute_script(
            "const scenario = document.getElementById('filter-scenario');"
            "const times = ['Offline', '', 'Offline', '', 'SingleStream'].map((value) => {"
            "  scenario.value = value;"
            "  const started = performance.now();"
            "  scenario.dispatchEvent(new Event('change', {bubbles: true}));"
            "  document.body.offsetHeight;"  # lays the page out
            "  return performance.now() - started });"
            "return Math.min(...times)"
        )
        assert len(list_shown(browser)) == 3 * batches
    assert least_ms[167] < 40 * least_ms[17]


def make_many_runs(batches: int):
    return [
        make_run(batch=batch, precision=precision, model_sha256=precision, scenario=scenario)
        for batch in range(1, batches + 1)
        for precision in ("fp32", "fp16", "int8")
        for scenario in ("Offline", "SingleStream")
    ]
