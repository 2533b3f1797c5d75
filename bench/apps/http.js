// Node's http: `node http.js hello|10k|1m|wait|upload|static|pg PORT`
const http = require('http');
const [, , mode, port] = process.argv;
const text = { 'content-type': 'text/plain' };
const fixed = (body) => (request, response) => {
  response.setHeader('content-type', 'text/plain');
  response.end(body);
};
const handlers = {
  hello: () => fixed('Hello, World!'),
  '10k': () => fixed('x'.repeat(10000)),
  '1m': () => fixed('x'.repeat(1000000)),
  wait: () => (request, response) => setTimeout(() => { response.setHeader('content-type', 'text/plain'); response.end('Hello, World!'); }, 10),
  upload: () => (request, response) => {
    let size = 0;
    request.on('data', (piece) => { size += piece.length; });
    request.on('end', () => { response.writeHead(200, text); response.end(String(size)); });
  },
  static: () => require('sirv')(process.env.BENCH_STATIC),
  pg: () => {
    const { Pool } = require('pg');
    const pool = new Pool({ connectionString: process.env.BENCH_POSTGRES, max: 16 });
    return async (request, response) => {
      const client = await pool.connect();
      const rows = [];
      try {
        for (let left = +request.url.slice(1); left > 0; left--) {
          const id = 1 + Math.floor(Math.random() * 10000);
          const found = await client.query({ name: 'world', text: 'SELECT id, randomnumber FROM world WHERE id = $1', values: [id] });
          rows.push(found.rows[0]);
        }
      } finally {
        client.release();
      }
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(rows));
    };
  },
};
http.createServer(handlers[mode]()).listen(+port, '127.0.0.1');
