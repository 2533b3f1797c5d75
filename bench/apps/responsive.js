// Hello, and /cpu through Piscina with one thread: `node responsive.js PORT`
const http = require('http');
const path = require('path');
const { Piscina } = require('piscina');
const pool = new Piscina({ filename: path.resolve(__dirname, 'fibonacci.js'), minThreads: 1, maxThreads: 1, niceIncrement: 10 });
http.createServer(async (request, response) => {
  response.setHeader('content-type', 'text/plain');
  response.end(request.url === '/cpu' ? String(await pool.run(27)) : 'Hello, World!');
}).listen(+process.argv[2], '127.0.0.1');
