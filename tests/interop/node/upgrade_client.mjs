// node as a client of other protocols: switches, says a lot, ends its half, and counts the echo.
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import http2 from "node:http2";

const [module, url, size] = process.argv.slice(2);
const { hostname, port, pathname } = new URL(url);
const bytes = randomBytes(Number(size));
const hash = (data) => createHash("sha256").update(data).digest("hex");

function talk(stream, done) {
  const echo = createHash("sha256");
  stream.on("data", (part) => echo.update(part));
  stream.on("end", () => done({ same: echo.digest("hex") === hash(bytes) }));
  stream.on("error", (error) => done({ error: error.message }));
  stream.end(bytes);
}

const done = (told) => {
  console.log(JSON.stringify(told));
  process.exit(0);
};

if (module === "http") {
  const headers = {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
  };
  const request = http.request({ hostname, port, path: pathname, headers });
  request.on("upgrade", (_response, socket, early) => {
    socket.unshift(early);
    talk(socket, done);
  });
  request.on("response", (response) => done({ status: response.statusCode }));
  request.on("error", (error) => done({ error: error.message }));
  request.end();
} else {
  const session = http2.connect(url);
  session.on("error", (error) => done({ error: error.message }));
  session.on("remoteSettings", (settings) => {
    if (!settings.enableConnectProtocol) return done({ error: "not offered" });
    const stream = session.request(
      {
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":scheme": "http",
        ":authority": `${hostname}:${port}`,
        ":path": pathname,
        "sec-websocket-version": "13",
      },
      { endStream: false },
    );
    stream.on("error", (error) => done({ error: error.message }));
    stream.on("response", (headers) => {
      if (headers[":status"] !== 200) return done({ status: headers[":status"] });
      talk(stream, done);
    });
  });
}
