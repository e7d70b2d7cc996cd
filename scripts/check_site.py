"""Click through a built site: every link within it leads to a page and place, no page reports an error, search finds. FOLDER"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

SEARCHED = ("UnitMem", "shards")


class _Page(HTMLParser):
    """The links and places of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            if value and ((tag == "a" and name == "href") or (name == "src" and tag in ("img", "script"))):
                self.links.append(value)


def broken(folder: Path) -> list[str]:
    """Links that lead nowhere, one line each."""
    pages = {path: _Page(path.read_text()) for path in folder.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            target, place = urldefrag(link)
            if target.startswith(("http:", "https:", "mailto:", "data:")) or path.name == "404.html":
                continue
            there = (path.parent / unquote(target)).resolve() if target else path
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file():
                found.append(f"{path.relative_to(folder)}: {link} leads nowhere")
            elif place and there in pages and unquote(place) not in pages[there].places:
                found.append(f"{path.relative_to(folder)}: {link}: no such place")
    return found


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The site on a port of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def looked_through(folder: Path) -> list[str]:
    """What a browser finds wrong: errors on its console, a search that finds nothing."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By

    options = Options()
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = str(shutil.which("chromium"))
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    found = []
    try:
        with served(folder) as home:
            for path in sorted(folder.rglob("*.html")):
                driver.get(f"{home}/{path.relative_to(folder).as_posix()}")
                found += [
                    f"{path.relative_to(folder)}: {entry['message']}"
                    for entry in driver.get_log("browser")
                    if entry["level"] == "SEVERE"
                ]
            for words in SEARCHED:
                driver.get(f"{home}/index.html")
                field = driver.find_element(By.CSS_SELECTOR, "input.md-search__input")
                driver.execute_script("document.getElementById('__search').click()")
                time.sleep(1)
                field.send_keys(words)
                end = time.monotonic() + 15
                while (
                    not (hits := driver.find_elements(By.CSS_SELECTOR, ".md-search-result__item"))
                    and time.monotonic() < end
                ):
                    time.sleep(0.2)
                if not hits:
                    found.append(f"search finds nothing for {words}")
    finally:
        driver.quit()
    return found


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    problems = broken(folder)
    pages = len(list(folder.rglob("*.html")))
    if shutil.which("chromium") and shutil.which("chromedriver"):
        problems += looked_through(folder)
        how = "looked through by a browser"
    else:
        how = "links alone: there is no chromium here"
    print("\n".join(problems) or f"{pages} pages in order ({how})")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
