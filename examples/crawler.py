"""A crawler: follows the links of one site, several pages at a time, and reports the broken ones.

    python examples/crawler.py http://127.0.0.1:8000/

What it shows: `http.fetch` with an agent of one's own (kept connections, limits, timeouts), `map_limited` so that never
more than so many pages are in flight, and errors told apart by whose fault they are. Ends with code 1 when links are
broken.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin, urlsplit

import multiloop
from multiloop import http
from multiloop.errors import BadReply, LimitError

LARGEST_PAGE_BYTES = 2_000_000


@dataclass
class Page:
    """What one address gave: a status and its links, or why there is none."""

    url: str
    status: int | None = None
    problem: str = ""
    links: list[str] = field(default_factory=list)

    @property
    def is_broken(self) -> bool:
        """Whether it could not be had."""
        return self.status is None or self.status >= 400


class Links(HTMLParser):
    """Collects the addresses that a page links to."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each opening tag."""
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.found.append(urldefrag(urljoin(self.base, href)).url)


class Crawler:
    """Visits every page of one site once."""

    def __init__(self, start: str, *, limit: int, most_pages: int) -> None:
        self.start = urldefrag(start).url
        self.site = urlsplit(start)[:2]
        self.limit = limit
        self.most_pages = most_pages
        self.pages: dict[str, Page] = {}
        self.agent = http.Agent(
            max_sockets=limit, timeouts=http.Timeouts(total=20), headers={"User-Agent": "multiloop-crawler"}
        )

    async def crawl(self) -> None:
        """Visit the start page, then what it links to, then what these link to."""
        async with self.agent:
            wave = [self.start]
            while wave:
                wave = wave[: self.most_pages - len(self.pages)]
                for page in await multiloop.map_limited(self.visit, wave, limit=self.limit):
                    self.pages[page.url] = page
                linked = [url for each in wave for url in self.pages[each].links]
                wave = [url for url in dict.fromkeys(linked) if url not in self.pages and self.is_here(url)]

    def is_here(self, url: str) -> bool:
        """Whether an address belongs to this site."""
        return urlsplit(url)[:2] == self.site

    async def visit(self, url: str) -> Page:
        """Fetch one page. Never raises for the page's fault: that is what is to be reported."""
        page = Page(url)
        try:
            async with http.fetch(url, agent=self.agent) as reply:
                page.status = reply.status
                if reply.ok and "html" in reply.headers.get("content-type", "") and self.is_here(reply.url):
                    links = Links(reply.url)
                    links.feed(await reply.text(max_size=LARGEST_PAGE_BYTES))
                    page.links = links.found
        except (OSError, BadReply, LimitError) as error:
            page.status = None
            page.problem = f"{type(error).__name__}: {error}"
        return page

    def report(self) -> int:
        """Print what was found; return the exit code."""
        broken = [page for page in self.pages.values() if page.is_broken]
        for page in broken:
            linked_from = [each.url for each in self.pages.values() if page.url in each.links]
            print(
                f"broken: {page.url} ({page.status or page.problem}), linked from {', '.join(linked_from) or 'nowhere'}"
            )
        print(f"{len(self.pages)} pages, {len(broken)} broken")
        return 1 if broken else 0


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Find the broken links of a site.")
    parser.add_argument("url")
    parser.add_argument("-n", "--at-once", type=int, default=8)
    parser.add_argument("--most-pages", type=int, default=1000)
    options = parser.parse_args()
    crawler = Crawler(options.url, limit=options.at_once, most_pages=options.most_pages)
    multiloop.run(crawler.crawl)
    sys.exit(crawler.report())


if __name__ == "__main__":
    main()
