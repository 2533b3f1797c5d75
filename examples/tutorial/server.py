"""Step 4: an HTTP server whose handler is a function."""

import multiloop
from multiloop import http


async def handle(request):
    if request.path == "/":
        return {"hello": request.query.get("name", "world")}
    if request.path == "/echo":
        return await request.text()
    return http.Response("no such page\n", status=404)


async def main():
    server = await http.create_server(handle).listen(0)
    host, port = server.address
    print(f"listening on http://{host}:{port}", flush=True)


multiloop.run(main)
