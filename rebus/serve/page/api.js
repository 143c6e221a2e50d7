// The server's routes. The browser adds the key by itself where the server has asked it for one.

export class Failed extends Error {}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const error = new Failed(told?.error?.message ?? `The server answered ${response.status}.`);
  error.code = told?.error?.code;
  throw error;
}

const sent = (body, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
  signal,
});

export const get = async (path) => (await answered(path)).json();
export const post = async (path, body, signal) => (await answered(path, sent(body, signal))).json();
export const blob = async (path) => (await answered(path)).blob();

/** An image as a PNG that every browser shows. */
export const preview = async (file) =>
  (await answered("/v1/preview", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file })).blob();

/** The pieces of an answer as they are generated. */
export async function* chat(body, signal) {
  const response = await answered("/v1/chat/completions", sent({ ...body, stream: true }, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (waiting + value).split("\n");
    waiting = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Failed(chunk.error.message);
      const piece = chunk.choices[0]?.delta.content;
      if (piece) yield piece;
    }
  }
}
