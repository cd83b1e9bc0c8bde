"""The page of the image builders, in a browser, and the pictures that it shows."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.integration.building import guide_pixels, receiving, served
from tests.unit.builder.desk import wait_done
from tests.unit.web.browser import Browser, chromium

PATIENCE_S = 120.0
needs_chromium = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
STATES = "[...document.querySelectorAll('#frames tbody tr')].map((row) => row.children[1].textContent).join()"


def picture(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def test_a_frame_is_handed_out_as_a_picture(tmp_path: Path) -> None:
    with served(tmp_path, {"name": "guider", "preset": "guider"}) as place, place.client() as client:
        client.assign(17, 0, sources=["GUIDE0", "GUIDE2"])
        client.push(17, 0, "GUIDE0", guide_pixels(), source="GUIDE0")
        url = f"{place.url}/v1/exposures/17/frames/0/picture"
        assert httpx.get(url, timeout=PATIENCE_S).status_code == 503  # not built yet
        client.push(17, 0, "GUIDE2", guide_pixels(1), source="GUIDE2")
        client.build(17, 0)
        both, one = (httpx.get(f"{url}{query}", timeout=PATIENCE_S) for query in ("", "?extensions=GUIDE2"))
        assert both.headers["content-type"] == one.headers["content-type"] == "image/png"
        assert picture(both.content).width > 1.5 * picture(one.content).width
        assert len(set(picture(one.content).convert("L").tobytes())) > 100
        for wrong in ("/v1/exposures/17/frames/1/picture", "/v1/exposures/17/frames/0/picture?extensions=NONE"):
            answer = httpx.get(f"{place.url}{wrong}", timeout=PATIENCE_S)
            assert (answer.status_code, answer.json()["kind"]) == (404, "rejected")
        client.set(plot_show=True, plot_show_ext="GUIDE2", plot_title=False, plot_subtitle=False)
        shown = httpx.get(url, timeout=PATIENCE_S)
        client.assign(17, 1, sources=["GUIDE0"])
        client.push(17, 1, "GUIDE0", guide_pixels(), source="GUIDE0")
        wait_done(place.builder, 17, 1)
        assert picture(shown.content).height < picture(one.content).height
        assert picture(shown.content).width == picture(one.content).width
    assert list(tmp_path.rglob("*.png")) == []


@needs_chromium
@pytest.mark.slow
def test_a_browser_follows_an_exposure(tmp_path: Path) -> None:
    guider = {"name": "guider", "preset": "guider", "local_copy": True}
    sections = guider, {"name": "sky", "preset": "sky", "camera": "lynx"}
    with served(tmp_path, *sections) as place, place.client("guider") as client, Browser() as browser:
        browser.open(place.url)
        browser.until("document.getElementById('message')?.textContent === 'guider waits for its first exposure'")
        client.assign(17, 0, sources=["GUIDE0", "GUIDE2"], timeout_s=600.0)
        browser.until(f"{STATES} === 'open'")
        client.push(17, 0, "GUIDE0", guide_pixels(), source="GUIDE0")
        browser.until("document.querySelector('#frames tr td:nth-child(4)').textContent === 'GUIDE2'")
        client.push(17, 0, "GUIDE2", guide_pixels(1), source="GUIDE2")
        browser.until(f"{STATES} === 'built'")
        browser.until("document.querySelector('#pictures img')?.naturalWidth > 300")
        browser.until("document.getElementById('frames').textContent.includes('guide-00000017-0000.fits')")
        assert browser.evaluate("document.getElementById('message').textContent.endsWith('with 1 frame')")
        client.finalize(17)
        client.archive(17, wait=True)
        browser.until("document.querySelector('#exposures .word').textContent === 'archived'")
        browser.until("document.getElementById('ready').textContent.includes('guide-00000017.fits')")
        assert "GiB free" in browser.evaluate("document.getElementById('figures').textContent")
        assert "archive ready" in browser.evaluate("document.getElementById('events').textContent")
        client.clear(17)
        browser.until("document.getElementById('exposures').textContent === 'none yet'")
        browser.evaluate("document.querySelectorAll('#tabs button')[1].click()")
        browser.until("document.getElementById('message').textContent === 'sky waits for its first exposure'")
        assert browser.evaluate("document.getElementById('light').className") == "live"
        assert browser.errors == []


@needs_chromium
@pytest.mark.slow
def test_what_a_source_says_is_text_and_a_token_is_asked_for(tmp_path: Path) -> None:
    with receiving() as source:  # it takes what is posted, and answers everything else with a page
        section = {"name": "guider", "preset": "guider", "pull": {"GUIDE3": f"{source.url}?<i>at</i>"}}
        with served(tmp_path, section, token="s3cret") as place, Browser() as browser:
            assert httpx.get(f"{place.url}/builders", timeout=PATIENCE_S).status_code == 401
            browser.open(f"{place.url}/builders?token=s3cret")
            browser.until("document.getElementById('message')?.textContent.includes('first exposure')")
            place.builder.assign(5, 0, sources=["GUIDE3"], timeout_s=0.5)
            browser.until(f"{STATES} === 'partial'")
            browser.until("document.getElementById('alarms').textContent.includes('GUIDE3')")
            browser.until("document.querySelector('#frames').textContent.includes('<i>at</i>')")
            assert browser.evaluate("document.querySelectorAll('#frames i').length") == 0
            assert browser.evaluate("document.querySelectorAll('#pictures img').length") == 0
            assert browser.errors == []
