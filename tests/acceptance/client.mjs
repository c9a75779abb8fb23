// A client as an integrator writes one, from the vendor's pages and docs/callbacks.md alone: Node, nothing installed, and
// nothing of ours. It drives both dialects, hears the callbacks and prints what it saw as one line of JSON.
//
//   node client.mjs BASE_URL EMAIL PASSWORD WEBHOOK_SECRET DID verify.mjs
import { createServer } from "node:http";

const [base, email, password, secret, did, verifier] = process.argv.slice(2);
const { verify } = await import(verifier);

async function call(method, path, { token, body } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
  const content = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${content.detail ?? content.message ?? content.error}`);
  if (content.status_code !== 200 || content.error !== null) throw new Error(`no success envelope: ${JSON.stringify(content)}`);
  return content;
}

const received = [];
const receiver = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts);
    const said = JSON.parse(body);
    const changed = Buffer.from(body.toString().replace("call_", "call-"));
    received.push({
      id: request.headers["webhook-id"], call: said.data.call_id, event: said.event, status: said.status_code,
      valid: verify(secret, request.headers, body), forged: verify(secret, request.headers, changed),
    });
    response.end();
  });
});
await new Promise((ready) => receiver.listen(0, "127.0.0.1", ready));
const callback_url = `http://127.0.0.1:${receiver.address().port}/hooks`;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function transcriptOf(prefix, id, token) {
  for (;;) {
    const { data, message } = await call("GET", `${prefix}/calls/${id}/transcript`, { token });
    if (!["pending", "processing"].includes(data.transcript_status)) return { data, message };
    await pause(500);
  }
}

const people = { customer_number: "919999999999", agent_number: "918888888888" };
const saw = {};

const old = (await call("POST", "/api/developer/login", { body: { email, password } })).data;
saw.seed = (await call("POST", "/api/developer/calls/click2call", { token: old.access_token, body: people })).data;

const current = (await call("POST", "/api/login", { body: { email, password } })).data;
const token = (await call("POST", `/api/refresh_token?refresh_token=${current.refresh_token}`)).data.access_token;
const order = { ...people, did, callback_url, transcript: true };
saw.created = (await call("POST", "/api/calls/click2call", { token, body: order })).data;
const busy = { ...order, customer_number: "15005550001" };
saw.busy = (await call("POST", "/api/calls/click2call", { token, body: busy })).data;

saw.seedTranscript = await transcriptOf("/api/developer", saw.seed.call_id, old.access_token);
saw.transcript = await transcriptOf("/api", saw.created.call_id, token);
saw.crossed = (await call("GET", `/api/developer/calls/${saw.created.call_id}/transcript`, { token })).data;
const recording = await fetch(saw.transcript.data.recording, { headers: { Range: "bytes=0-3" } });
saw.recording = { status: recording.status, type: recording.headers.get("content-type"), begins: await recording.text() };
saw.recent = (await call("GET", "/api/calls/recent?limit=50", { token })).data;
saw.numbers = (await call("GET", "/api/mobile-numbers", { token })).data;

while (received.length < 4) await pause(200);
saw.received = received;
receiver.close();
console.log(JSON.stringify(saw));
