// WebSockets with ws, Node's usual library: `node websocket.js echo|broadcast PORT`
const http = require('http');
const { WebSocketServer } = require('ws');
const [, , mode, port] = process.argv;
const server = http.createServer((request, response) => response.end('Hello, World!'));
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket) => socket.on('message', (message, binary) => {
  if (mode === 'echo') socket.send(message, { binary });
  else for (const member of sockets.clients) member.send(message, { binary });
}));
server.listen(+port, '127.0.0.1');
