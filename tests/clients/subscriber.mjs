// A subscriber with Node's `eventsource`: node subscriber.mjs URL END
// Writes what it hears, one JSON array [event, id, data] a line, until it has heard of the resource END.
// The client reconnects by itself; the test kills the server meanwhile.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const [url, end] = process.argv.slice(2);
const modules = process.env.FHIR_TAIL_TEST_NODE_MODULES;
const require = createRequire(pathToFileURL(join(modules, "..", "package.json")));
const { EventSource } = require("eventsource");

const source = new EventSource(url);
const hear = (message) => {
  process.stdout.write(JSON.stringify([message.type, message.lastEventId, message.data]) + "\n");
  if (JSON.parse(message.data).id === end) {
    source.close();
  }
};
for (const type of ["Patient", "Observation", "Bundle", "OperationOutcome"]) {
  source.addEventListener(type, hear);
}
// Every event of ours has a name.
source.onmessage = (message) => {
  process.stderr.write("an event without a name: " + message.data + "\n");
  process.exit(1);
};
