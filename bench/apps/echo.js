// Echo on Node's net: `node echo.js PORT`
require('net').createServer((socket) => socket.on('data', (chunk) => socket.write(chunk))).listen(+process.argv[2], '127.0.0.1');
