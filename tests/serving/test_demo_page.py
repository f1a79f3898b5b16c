"""The demo page in a real browser: what a visitor does, by mouse, by keyboard, on a phone; and what it never does."""

import base64
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from itertools import product
from typing import Any

import pytest
import torch

for package in ("fastapi", "uvicorn", "prometheus_client", "httpx"):
    pytest.importorskip(package)

from quasinat.serving.demo_maths import Exhibit  # noqa: E402
from quasinat.serving.limits import Limits  # noqa: E402
from serving.browser import REBOUND, chromium  # noqa: E402
from serving.demo_service import exhibit, patches, png, shown  # noqa: E402
from serving.service import KEY, Service, until  # noqa: E402

PAGE = files("quasinat.serving").joinpath("page")
SCRIPTS = ("script.js", "show.js", "words.js")
DONE = "#results:not(.busy)"


class Gate:
    """Lets the server's work through, or holds it until a test lets one piece pass."""

    def __init__(self) -> None:
        self.passes, self.reached = threading.Semaphore(0), threading.Event()
        self.held = False

    def __call__(self) -> None:
        if self.held:
            self.reached.set()
            assert self.passes.acquire(timeout=20)


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def service(browser: Any, gate: Gate) -> Iterator[Service]:
    """As the command starts it; the browser comes first, for without one there is nothing to serve."""
    with shown(exhibit(), gate) as running:
        yield running


@pytest.fixture(scope="module")
def server(service: Service) -> str:
    return service.url


class Visit:
    """A page that notes what it asked for and what it complained of."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(f"{request.method} {request.url}"))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.address = address
        self.page.goto(address)
        self.page.wait_for_selector("#pictures figure")
        self.settle()

    def settle(self) -> None:
        """Waits until the page has asked for all that it shows."""
        self.page.wait_for_selector(DONE)

    def texts(self, selector: str) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def visit(browser: Any, server: str) -> Iterator[Visit]:
    visit = Visit(browser, server)
    yield visit
    visit.close()
    strangers = [url for url in visit.asked if not url.split()[1].startswith((visit.address, "data:"))]
    assert strangers == []
    assert visit.complaints == []


def test_a_newcomer_sees_a_photograph_attacked_at_once(visit: Visit) -> None:
    assert visit.texts("figcaption") == ["Clean x", "Attacked x′", "Difference times 5", "Projected T(x′)"]
    assert visit.page.locator("#pictures img").count() == 4
    assert [text.split(",")[0] for text in visit.texts(".says .who")] == ["Plain", "Defended"] * 3
    assert "PGD of L∞ 8/255 on the plain classifier, 20 steps." in visit.texts("#status")[0]
    assert visit.page.locator("#honest").is_visible()
    assert visit.texts("#scaled") == ["chelsea: 96 × 96 pixels, scaled down to 32 × 32"]


def test_another_photograph_attack_and_strength(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="flower").click()
    page.get_by_label("Method").select_option("fgsm")
    page.get_by_role("radio", name="White-box the layer too").check()
    page.get_by_role("radio", name="L2-dissimilarity").check()
    visit.settle()
    assert page.get_by_role("button", name="flower").get_attribute("aria-pressed") == "true"
    assert page.get_by_role("button", name="chelsea").get_attribute("aria-pressed") == "false"
    query = visit.asked[-1]
    assert "attack=fgsm" in query
    assert "threat=white-box&" in query + "&"
    assert "budget=dissimilarity%3A0.03" in query
    status = visit.texts("#status")[0]
    assert status.startswith("FGSM of L2-dissimilarity 0.03 on the defended classifier, along its true gradient.")
    page.get_by_label("Method").select_option("none")
    visit.settle()
    assert visit.texts("#status") == ["Not attacked."]
    assert page.get_by_role("radio", name="Gray-box").is_disabled()


def test_lambda_by_keyboard(visit: Visit) -> None:
    page = visit.page
    before = atoms(visit)
    assert visit.texts("#lambda-value") == ["0.05, as learned"]
    assert visit.texts("#lambda-learned") == ["learned 0.05"]
    page.get_by_label("λ, the weight of sparsity").focus()
    page.keyboard.press("End")
    visit.settle()
    assert page.locator("#lambda").get_attribute("aria-valuetext") == "0.2"
    assert "lambda=0.2&" in visit.asked[-1]
    assert atoms(visit) < before
    page.get_by_role("button", name="Back to the learned value").press("Enter")
    visit.settle()
    assert atoms(visit) == before
    assert page.evaluate("document.activeElement.id") == "lambda"


def atoms(visit: Visit) -> int:
    """The codes that are not zero, of the attacked image."""
    found = re.search(r"([\d,]+) of", visit.texts(".numbers")[0])
    assert found
    return int(found[1].replace(",", ""))


def test_stale_answers_are_dropped_and_one_request_is_under_way(visit: Visit, gate: Gate) -> None:
    page = visit.page
    shown = page.locator("#answer").inner_html()
    visit.asked.clear()
    gate.held = True
    try:
        with page.expect_request("**/v1/demo?*"):
            page.locator("#lambda").press("ArrowRight")
        assert visit.texts("#status") == ["Attacking with PGD …"]
        for _ in range(4):
            page.locator("#lambda").press("ArrowRight")
            page.wait_for_timeout(260)  # more than the page waits for another change
        assert len(visit.asked) == 1
        with page.expect_response("**/v1/demo?*"):
            gate.passes.release()
        page.wait_for_timeout(100)
        assert page.locator("#answer").get_attribute("aria-busy") == "true"
        pictures = page.locator("#pictures").inner_html()
        assert pictures in shown  # the first answer came and was not shown
        gate.passes.release()
        page.wait_for_selector(DONE)
    finally:
        gate.held = False
        gate.passes.release()
    assert len(visit.asked) == 2
    assert page.locator("#pictures").inner_html() != pictures
    assert f"lambda={0.05 * 4 ** (5 / 20):.6g}&" in visit.asked[-1]


def test_the_page_can_be_walked_by_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    page.evaluate("document.activeElement.blur()")
    walked, unseen, nameless = [], [], []
    for _ in range(40):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            """() => { const e = document.activeElement; if (e === document.body) return null;
            const box = e.closest('.file') ?? e, style = getComputedStyle(box);
            return { what: e.id || e.dataset.name || e.value || e.className, outline: style.outlineStyle !== 'none'
            && parseFloat(style.outlineWidth) >= 2, name: e.labels?.[0]?.innerText || e.title || e.innerText }; }"""
        )
        if stop is None:
            break
        walked.append(stop["what"])
        unseen += [] if stop["outline"] else [stop["what"]]
        nameless += [] if stop["name"] else [stop["what"]]
    assert walked[0] == "skip"
    expected = ["file", "chelsea", "flower", "side", "attack", "gray-box", "linf", "strength", "lambda"]
    assert [each for each in walked if each in expected] == expected
    assert unseen == []
    assert nameless == []


def test_everything_is_chosen_by_keyboard(visit: Visit) -> None:
    page = visit.page
    page.locator('[data-name="coffee"]').press("Space")
    page.locator("#attack").press("ArrowUp")
    page.locator('[value="gray-box"]').press("ArrowDown")
    page.locator("#strength").press("ArrowRight")
    visit.settle()
    assert "attack=bim&budget=linf%3A9%2F255" in visit.asked[-1]
    assert "threat=white-box" in visit.asked[-1]
    assert visit.texts("#scaled")[0].startswith("coffee:")


def dropped(page: Any, content: bytes, name: str) -> None:
    data = page.evaluate_handle(
        """([content, name]) => { const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name)); return data; }""",
        [base64.b64encode(content).decode(), name],
    )
    page.dispatch_event("main", "drop", {"dataTransfer": data})


def test_a_file_is_dropped_or_chosen(visit: Visit) -> None:
    dropped(visit.page, png(patches()[0]), "patch.png")
    visit.settle()
    assert visit.texts("#scaled") == ["patch.png: 32 × 32 pixels"]
    assert visit.page.locator("[aria-pressed=true]").count() == 0
    large = {"name": "large.png", "mimeType": "image/png", "buffer": png(torch.rand(3, 60, 120))}
    visit.page.set_input_files("#file", large)
    visit.settle()
    assert visit.texts("#scaled") == ["large.png: 120 × 60 pixels, scaled down to 32 × 16"]


def test_what_is_no_image_is_said_in_one_line_and_the_next_image_mends_it(browser: Any, server: str) -> None:
    visit = Visit(browser, server)
    dropped(visit.page, b"these are words", "words.txt")
    visit.settle()
    alert = visit.page.get_by_role("alert")
    said = "The file is no image of a known format; send a PNG, JPEG, WebP or BMP file."
    assert alert.inner_text() == said
    assert visit.texts("#status") == ["What stands below is the last answer."]
    assert len(visit.complaints) == 1  # the browser's own line on a failed request
    assert "422" in visit.complaints[0]
    visit.page.locator('[data-name="rocket"]').click()
    visit.settle()
    assert not alert.is_visible()
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_horizontal_scroll(browser: Any, server: str, scheme: str) -> None:
    visit = Visit(browser, server, viewport={"width": 360, "height": 780}, color_scheme=scheme, has_touch=True)
    wide = visit.page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth
        && e.getBoundingClientRect().width > 0).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
    small = visit.page.evaluate(
        """() => [...document.querySelectorAll('select, button, .file')].filter((e) => e.offsetHeight
        && e.offsetHeight < 44).map((e) => e.outerHTML)"""
    )
    assert small == []  # what a finger has to hit
    visit.close()


def test_a_layer_alone(browser: Any) -> None:
    with shown(Exhibit(exhibit().layer)) as service:
        visit = Visit(browser, service.url)
        assert "no classifier" in visit.texts("#missing")[0]
        assert visit.page.locator("#pictures img").count() == 4
        assert visit.page.locator(".says").count() == 0
        assert visit.page.locator("#attack option").all_inner_texts() == ["none", "random noise"]
        assert visit.page.locator("[name=threat]:enabled").count() == 0
        assert visit.complaints == []
        visit.close()


def test_a_service_with_a_key_asks_for_it(browser: Any) -> None:
    with shown(Exhibit(exhibit().layer), key=KEY) as service:
        page = browser.new_page()
        page.goto(service.url)
        page.get_by_label("The key of this server").fill(KEY[:-1])
        page.keyboard.press("Enter")
        page.wait_for_selector(DONE)
        assert page.get_by_role("alert").inner_text() == "The key is missing or wrong; send Authorization: Bearer KEY."
        page.get_by_label("The key of this server").fill(KEY)
        page.get_by_role("button", name="Use it").click()
        page.wait_for_selector("#pictures figure")
        assert not page.get_by_label("The key of this server").is_visible()
        assert not page.get_by_role("alert").is_visible()
        assert service.metric("quasinat_requests_total", path="/v1/demo", status="200") == 2
        page.close()


def test_a_service_that_is_full_says_so_and_the_next_change_mends_it(browser: Any) -> None:
    gate, image = Gate(), png(patches()[0])
    with shown(Exhibit(exhibit().layer), gate, limits=Limits(queue=2)) as service, ThreadPoolExecutor(3) as clients:
        visit = Visit(browser, service.url)
        gate.held = True
        waiting = [clients.submit(service.post, "/v1/demo", image)]
        assert gate.reached.wait(20)
        waiting += [clients.submit(service.post, "/v1/demo", image) for _ in range(2)]
        until(lambda: len(service.app.state.worker) == 2)
        visit.page.locator("#lambda").press("ArrowRight")
        visit.settle()
        alert = visit.page.get_by_role("alert")
        said = "2 requests are waiting already; send it again after the seconds of Retry-After."
        assert alert.inner_text() == said
        gate.held = False
        gate.passes.release()
        assert {answer.result().status_code for answer in waiting} == {200}
        visit.page.locator("#lambda").press("ArrowRight")
        visit.settle()
        assert not alert.is_visible()
        visit.close()


def test_a_page_of_another_site_reaches_nothing(browser: Any, service: Service) -> None:
    """By sending without asking first, and as a site whose name means this machine."""
    context = browser.new_context(bypass_csp=True)  # another site's page has no policy of ours
    page = context.new_page()

    def foreign() -> float:
        return service.metric("quasinat_refused_total", reason="foreign")

    before = foreign()
    with shown(Exhibit(exhibit().layer)) as other:
        page.goto(other.url.replace("127.0.0.1", "localhost") + "/docs")
        page.evaluate(
            "url => fetch(url, {method: 'POST', mode: 'no-cors', body: new Blob(['x'])}).catch(() => 0)",
            f"{service.url}/v1/project",
        )
    assert foreign() == before + 1  # it went out, and came to nothing
    answer = page.goto(service.url.replace("127.0.0.1", REBOUND))
    assert answer.status == 403
    assert answer.json()["error"] == f"the service is not called {REBOUND}"
    context.close()


# The files themselves.


def test_nothing_is_inline_and_nothing_is_from_elsewhere() -> None:
    page = PAGE.joinpath("index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for name in ("index.html", "style.css", *SCRIPTS):
        assert not re.search(r"(https?:)?//[a-z]", re.sub(r"(?m)^//.*$", "", PAGE.joinpath(name).read_text("utf-8")))
    ids = set(re.findall(r'\sid="([^"]+)"', page))
    for kind in ("for", "aria-labelledby", "aria-describedby"):
        assert set(re.findall(rf'\s{kind}="([^"]+)"', page)) <= ids
    for name in SCRIPTS:
        assert set(re.findall(r'\bat\("([^"]+)"\)', PAGE.joinpath(name).read_text("utf-8"))) <= ids


def luminance(colour: str) -> float:
    """The relative luminance of `#rrggbb` or `#rgb` (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_aa_in_both_schemes() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    style = PAGE.joinpath("style.css").read_text("utf-8")
    schemes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", part)) for part in style.split("@media", 2)[:2]]
    for colours in schemes:
        text = [*product(("ink", "soft"), ("paper", "panel", "bar")), ("ink", "mark-tint"), ("ink", "bad-tint")]
        for first, second in text:
            assert contrast(colours[first], colours[second]) >= 4.5, (first, second)
        for first, second in product(("line", "accent", "mark", "bad"), ("paper",)):
            assert contrast(colours[first], colours[second]) >= 3, (first, second)
