// Talks to the service that this page came from, and to nothing else. The key lives in this module's memory only.
let key = null;

/** What the service refused, or that it did not answer. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The JSON answer to a GET, or to a POST if there is a body. `askForKey(wrong)` gives a key, or null to give up. */
export async function call(path, body, askForKey) {
  for (;;) {
    const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
    const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
    let response, answer;
    try {
      response = await fetch(path, { ...options, signal: AbortSignal.timeout(60000), credentials: "omit" });
      answer = await response.json();
    } catch {
      throw new Refused("unreachable", "The service does not answer. Is it still running?");
    }
    if (response.ok) return answer;
    if (response.status !== 401) throw new Refused(answer?.error?.code, answer?.error?.message ?? `The service answered with status ${response.status}.`);
    const given = await askForKey(key !== null);
    if (!given) throw new Refused("unauthorized", "The service asks for a key: reload this page to give one.");
    key = given;
  }
}
