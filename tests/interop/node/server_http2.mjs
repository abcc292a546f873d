// node's `http2` as an app: tells in JSON what it was asked, and can stop in the middle.
import { createHash } from "node:crypto";
import http2 from "node:http2";

const pairs = (raw) =>
  Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i], raw[2 * i + 1]]);

const fields = {
  "x-many": ["one", "two, three"],
  "set-cookie": ["a=1; Path=/", "b=2"],
  "x-camelcase": "Kept",
};
const options = { sendDate: false };

const server = http2.createServer();
server.on("stream", (stream, headers, flags, raw) => {
  const path = headers[":path"];
  const says = (status, more = {}) => ({ ":status": status, ...fields, ...more });
  stream.on("error", () => {});
  if (path === "/none") return stream.respond(says(204), { ...options, endStream: true });
  if (path === "/cached")
    return stream.respond(says(304, { etag: '"v1"' }), { ...options, endStream: true });
  if (path === "/talk") {
    stream.respond(says(200), options);
    return stream.pipe(stream);
  }
  if (path === "/torn") {
    stream.respond(says(200), options);
    stream.write("half");
    return setTimeout(() => stream.destroy(new Error("torn")), 50);
  }
  const hash = createHash("sha256");
  let trailers = [];
  stream.on("trailers", (_object, _flags, got) => (trailers = pairs(got)));
  stream.on("data", (part) => hash.update(part));
  stream.on("end", () => {
    const told = {
      what: `${headers[":method"]} ${path}`,
      fields: pairs(raw),
      body: hash.digest("hex"),
      trailers,
    };
    if (headers[":method"] === "HEAD")
      return stream.respond(says(203), { ...options, endStream: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "of node" }));
    stream.respond(says(203, { trailer: "X-Sum" }), { ...options, waitForTrailers: true });
    stream.end(JSON.stringify(told));
  });
});
server.listen(Number(process.argv[2]), "127.0.0.1");
