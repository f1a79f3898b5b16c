"""The pictures of the demo page in `docs/`: a CIFAR-10 test image under a white-box and under a gray-box attack.

Start the service with a layer, a classifier trained on projected images and a plain one (docs/demo-page.md), then

    python benchmarks/demo_screenshots.py --url http://127.0.0.1:8000 --root DIR --out docs

It takes a Chromium on the PATH and the package playwright.
"""

import argparse
import base64
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from quasinat.data import load
from quasinat.report.pictures import data_uri

DONE = "#results:not(.busy)"


def test_image(root: Path, number: int) -> bytes:
    """The PNG file of a CIFAR-10 test image."""
    image = load("cifar10", root).test_images[number]
    return base64.b64decode(data_uri(image).partition(",")[2])


def opened(browser: Browser, url: str, content: bytes, width: int, height: int, scale: float) -> Page:
    """The page with the image chosen and shown."""
    page = browser.new_page(
        viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme="light"
    )
    page.goto(url)
    page.wait_for_selector("#pictures figure")
    page.set_input_files("#file", {"name": "image.png", "mimeType": "image/png", "buffer": content})
    page.wait_for_selector(DONE)
    return page


def kept(picture: bytes, path: Path) -> None:
    """Writes a screenshot as small as PNG makes it."""
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").save(path, optimize=True)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service is")
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--number", type=int, default=1, help="of the test image")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="the folder to write to")
    options = parser.parse_args()
    content = test_image(options.root, options.number)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        desktop = opened(browser, options.url, content, 1280, 900, 1.5)
        desktop.locator('[value="white-box"]').check()
        desktop.wait_for_selector(DONE)
        desktop.locator("h1").click()  # no focus ring, no hover
        kept(desktop.screenshot(full_page=True), options.out / "demo-service.png")
        phone = opened(browser, options.url, content, 360, 1036, 2)
        phone.locator("#results").evaluate("results => results.scrollIntoView()")
        kept(phone.screenshot(), options.out / "demo-service-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
