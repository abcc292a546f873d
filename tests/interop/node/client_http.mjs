// node's `http`: asks what it is told to, over one connection, and prints what it has heard.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";

const [url, asked, upload] = process.argv.slice(2);
const { hostname, port } = new URL(url);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

const pairs = (raw) =>
  Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i], raw[2 * i + 1]]);

function ask(method, path, fields, body) {
  return new Promise((resolve, reject) => {
    // An array of names and values goes out as it is, several lines of one name included.
    const headers = [["Host", `${hostname}:${port}`], ...fields];
    if (body) headers.push(["Transfer-Encoding", "chunked"], ["Trailer", "X-Late"]);
    const request = http.request(
      { hostname, port, method, path, agent, headers: headers.flat() },
      (response) => {
        const hash = createHash("sha256");
        response.on("data", (part) => hash.update(part));
        response.on("end", () =>
          resolve({
            status: response.statusCode,
            fields: pairs(response.rawHeaders),
            body: hash.digest("hex"),
            trailers: pairs(response.rawTrailers),
          }),
        );
      },
    );
    request.on("error", reject);
    if (body) {
      request.write(readFileSync(upload));
      request.addTrailers([["X-Late", "yes"]]);
    }
    request.end();
  });
}

const told = [];
for (const [method, path, fields, body] of JSON.parse(asked)) {
  told.push(await ask(method, path, fields, body));
}
agent.destroy();
console.log(JSON.stringify(told).replace(/[\u0080-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")));
