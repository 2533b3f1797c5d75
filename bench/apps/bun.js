// Bun.serve: `bun bun.js hello|10k|1m|wait|upload|static|pg|echo|broadcast PORT`
const mode = process.argv[2];
const port = +process.argv[3];
const headers = { 'content-type': 'text/plain' };
const tenK = 'x'.repeat(10000);
const oneM = 'x'.repeat(1000000);
const fetchers = {
  hello: () => () => new Response('Hello, World!', { headers }),
  '10k': () => () => new Response(tenK, { headers }),
  '1m': () => () => new Response(oneM, { headers }),
  wait: () => async () => { await Bun.sleep(10); return new Response('Hello, World!', { headers }); },
  upload: () => async (request) => new Response(String((await request.arrayBuffer()).byteLength), { headers }),
  static: () => (request) => new Response(Bun.file(process.env.BENCH_STATIC + new URL(request.url).pathname)),
  pg: () => {
    const { SQL } = require('bun');
    const sql = new SQL({ url: process.env.BENCH_POSTGRES, max: 16 });
    return async (request) => {
      const rows = [];
      const client = await sql.reserve();
      try {
        for (let left = +new URL(request.url).pathname.slice(1); left > 0; left--) {
          const id = 1 + Math.floor(Math.random() * 10000);
          const [row] = await client`SELECT id, randomnumber FROM world WHERE id = ${id}`;
          rows.push(row);
        }
      } finally {
        client.release();
      }
      return Response.json(rows);
    };
  },
};
const options = { port, hostname: '127.0.0.1' };
if (mode === 'echo' || mode === 'broadcast') {
  options.fetch = (request, server) => (server.upgrade(request) ? undefined : new Response('Hello, World!'));
  options.websocket = {
    open(socket) { socket.subscribe('all'); },
    message(socket, message) {
      if (mode === 'echo') socket.send(message);
      else server.publish('all', message);
    },
  };
} else {
  options.fetch = fetchers[mode]();
}
const server = Bun.serve(options);
