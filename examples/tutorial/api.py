"""Step 5: a FastAPI application, for `multiloop serve api:app`."""

import os

from fastapi import FastAPI

app = FastAPI()
GREETING = "hello"


@app.get("/")
async def greet(name: str = "world"):
    return {"greeting": f"{GREETING} {name}", "worker": os.getpid()}
