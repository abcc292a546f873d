// node's `http2`: asks what it is told to, over one connection, and prints what it has heard.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const [url, asked, upload] = process.argv.slice(2);
const session = http2.connect(url);

// An object: several lines of one name are an array or joined by node itself.
const pairs = (object) =>
  Object.entries(object).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => [name, String(one)]),
  );

function ask(method, path, fields, body) {
  return new Promise((resolve, reject) => {
    const headers = { ":method": method, ":path": path };
    for (const [name, value] of fields) {
      const lower = name.toLowerCase();
      headers[lower] = lower in headers ? [headers[lower], value].flat() : value;
    }
    const stream = session.request(headers, { endStream: !body, waitForTrailers: body });
    const answer = { trailers: [] };
    const hash = createHash("sha256");
    stream.on("response", (got) => {
      answer.status = got[":status"];
      answer.fields = pairs(got).filter(([name]) => !name.startsWith(":"));
    });
    stream.on("trailers", (got) => (answer.trailers = pairs(got)));
    stream.on("data", (part) => hash.update(part));
    stream.on("error", reject);
    stream.on("close", () => resolve({ ...answer, body: hash.digest("hex") }));
    if (body) {
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-late": "yes" }));
      stream.end(readFileSync(upload));
    }
    stream.resume();
  });
}

const told = [];
for (const [method, path, fields, body] of JSON.parse(asked)) {
  told.push(await ask(method, path, fields, body));
}
session.close();
console.log(JSON.stringify(told).replace(/[\u0080-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")));
