"""Thumbnails of uploaded pictures: a FastAPI application whose loop never decodes a picture.

    pip install fastapi pillow
    multiloop serve examples.thumbnails:app --workers 2
    curl --data-binary @picture.jpg http://127.0.0.1:8000/thumbnails?size=200 > small.webp

What it shows: a pool that starts and ends with the worker, large bytes to it and back, a time limit that stops a picture
that takes too long, a bounded queue that turns into 503 instead of an ever longer wait, and an error of the worker that
arrives as what it is.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse

from multiloop.errors import PoolFull
from multiloop.pool import Pool

MOST_BYTES = 20 * 1024 * 1024  # of an upload
MOST_PIXELS = 50_000_000  # of a picture: a small file can unpack to gigabytes
MOST_SECONDS = 10.0  # of work for one

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Thumbnails</title>
<style>body { font: 1rem system-ui; margin: 2rem auto; max-width: 50rem } img { margin: .3rem; border-radius: .3rem }</style>
<h1>Thumbnails</h1>
<p><label>Pictures: <input type="file" accept="image/*" multiple></label> <span role="status"></span></p>
<main></main>
<script>
  const [input, status, main] = ["input", "[role=status]", "main"].map(name => document.querySelector(name));
  input.onchange = () => Promise.all([...input.files].map(async file => {
    const reply = await fetch("thumbnails?size=160", {method: "POST", body: file});
    if (!reply.ok) { status.textContent = `${file.name}: ${(await reply.json()).detail}`; return; }
    const image = Object.assign(new Image(), {src: URL.createObjectURL(await reply.blob()), alt: file.name});
    main.append(image);
  }));
</script></html>"""


class NotAPicture(ValueError):
    """The bytes are no picture that can be read, or one that is too large."""


def make_thumbnail(data: bytes, size: int) -> bytes:
    """Decode a picture, shrink it to fit a square, return it as WebP. Runs in a worker of the pool."""
    from PIL import Image, ImageOps  # here: the server itself never needs it

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise NotAPicture(f"{picture.width} x {picture.height} is more than {MOST_PIXELS:,} pixels")
            upright = ImageOps.exif_transpose(picture)
            upright.thumbnail((size, size))
            made = io.BytesIO()
            upright.convert("RGB").save(made, "WEBP", quality=80)
            return made.getvalue()
    except (OSError, SyntaxError) as error:  # what Pillow raises for broken files
        raise NotAPicture(f"this is no picture: {error}") from error


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Pool]]:
    """One worker beside each worker of the server; eight pictures may wait."""
    async with Pool(workers=1, max_queue=8, task_timeout=MOST_SECONDS, name="thumbnails") as pool:
        yield {"pool": pool}


app = FastAPI(title="Thumbnails", lifespan=lifespan)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page to drop pictures on."""
    return PAGE


@app.post("/thumbnails")
async def thumbnail(request: Request, size: Annotated[int, Query(ge=16, le=1024)] = 200) -> Response:
    """Take a picture as the body of the request; answer with its thumbnail."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise HTTPException(413, f"at most {MOST_BYTES:,} bytes")
    pool: Pool = request.state.pool
    try:
        made = await pool.run(make_thumbnail, bytes(data), size)
    except PoolFull:
        raise HTTPException(503, "too many pictures at once", headers={"Retry-After": "1"}) from None
    except TimeoutError:
        raise HTTPException(422, f"this picture takes longer than {MOST_SECONDS:g} s") from None
    except NotAPicture as error:
        raise HTTPException(415, str(error)) from None
    return Response(made, media_type="image/webp")


@app.get("/statistics")
async def statistics(request: Request) -> dict[str, float]:
    """What the pool of this worker has done."""
    taken = request.state.pool.statistics()
    return {
        "made": taken.completed,
        "refused": taken.failed,
        "waiting": taken.queued,
        "median_seconds": taken.run.p50,
        "utilization": taken.utilization,
    }
