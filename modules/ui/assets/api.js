// Requests to /ui-api: they carry the tab's session, and fail with the server's own sentence.

import { session } from "./session.js";

export { session };

const API = new URL("../../ui-api/", import.meta.url);

export class ApiError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

export function get(path, query = {}) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return request(url, {});
}

export function post(path, body = {}) {
  return request(new URL(path, API), { method: "POST", body: JSON.stringify(body) });
}

async function request(url, options) {
  let response;
  try {
    response = await fetch(url, { ...options, headers: { "X-Session": session(), "Content-Type": "application/json" } });
  } catch {
    throw new ApiError("The server does not answer. Is it still running? What you typed is kept; try again.", "offline");
  }
  if (response.status === 401) {
    location.reload(); // the guard then asks for the key
    throw new ApiError("This server asks for its key again.", "invalid_api_key");
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new ApiError(`The server answered ${response.status} without saying why; see its log.`, "no_answer");
  }
  if (!response.ok) throw new ApiError(body.error?.message ?? `The server answered ${response.status}.`, body.error?.code ?? "");
  return body;
}

export function socketAddress(run, epoch, version) {
  const url = new URL(`runs/${encodeURIComponent(run)}`, API);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("epoch", epoch);
  url.searchParams.set("version", version);
  return url;
}
