// node as a server of other protocols: HTTP/1.1 Upgrade and RFC 8441, each an echo of raw bytes.
import { createHash } from "node:crypto";
import http from "node:http";
import http2 from "node:http2";

const [one, two] = process.argv.slice(2).map(Number);
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const server = http.createServer((_request, response) => response.end("no upgrade"));
server.on("upgrade", (request, socket, early) => {
  if (request.url === "/no") {
    return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
  }
  const key = request.headers["sec-websocket-key"];
  const lines = [
    "HTTP/1.1 101 Switching Protocols",
    "Connection: Upgrade",
    `Upgrade: ${request.headers.upgrade}`,
  ];
  if (key) lines.push(`Sec-WebSocket-Accept: ${createHash("sha1").update(key + GUID).digest("base64")}`);
  socket.write(lines.join("\r\n") + "\r\n\r\n");
  socket.write(early);
  socket.pipe(socket); // its end is the end of ours
});
server.listen({ port: one, host: "127.0.0.1" });

const server2 = http2.createServer({ settings: { enableConnectProtocol: true } });
server2.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  if (headers[":method"] !== "CONNECT" || headers[":path"] === "/no") {
    stream.respond({ ":status": 403 });
    return stream.end("no");
  }
  stream.respond({ ":status": 200 });
  stream.pipe(stream);
});
server2.listen(two, "127.0.0.1");
