"""FastAPI: a hello and a JSON reply through a model."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    id: int
    name: str
    tags: list[str]
    price: float


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


@app.get("/items/{item_id}")
async def item(item_id: int, q: str = "") -> Item:
    return Item(id=item_id, name=q or "thing", tags=["a", "b", "c"], price=9.5)
