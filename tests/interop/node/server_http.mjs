// node's `http` as an app: tells in JSON what it was asked, and can stop in the middle.
import { createHash } from "node:crypto";
import http from "node:http";

const pairs = (raw) =>
  Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i], raw[2 * i + 1]]);

const server = http.createServer((request, response) => {
  response.setHeader("X-Many", ["one", "two, three"]);
  response.setHeader("Set-Cookie", ["a=1; Path=/", "b=2"]);
  response.setHeader("X-CamelCase", "Kept");
  response.sendDate = false;
  if (request.url === "/none") return response.writeHead(204).end();
  if (request.url === "/cached") return response.writeHead(304, { ETag: '"v1"' }).end();
  if (request.url === "/talk") {
    // Says back what it hears, as it hears it.
    response.flushHeaders();
    return request.pipe(response);
  }
  if (request.url === "/torn") {
    response.writeHead(200).write("half");
    return setImmediate(() => request.socket.destroy());
  }
  const hash = createHash("sha256");
  request.on("data", (part) => hash.update(part));
  request.on("end", () => {
    const chunked = request.method !== "HEAD";
    response.writeHead(203, chunked ? { Trailer: "X-Sum" } : {});
    if (chunked) response.addTrailers({ "X-Sum": "of node" });
    response.end(
      JSON.stringify({
        what: `${request.method} ${request.url}`,
        fields: pairs(request.rawHeaders),
        body: hash.digest("hex"),
        trailers: pairs(request.rawTrailers),
      }),
    );
  });
});
server.on("checkContinue", (request, response) => {
  response.writeContinue();
  server.emit("request", request, response);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
