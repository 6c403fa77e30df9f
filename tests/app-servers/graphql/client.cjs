// client.cjs URL
const { createClient } = require("graphql-ws");
const { WebSocket } = require("ws");

const closed = {};
closed.event = new Promise((resolve) => (closed.resolve = resolve));
const client = createClient({
  url: `${process.argv[2]}/graphql`,
  webSocketImpl: WebSocket,
  retryAttempts: 0,
  lazy: false,
  on: {
    connected: (_socket, payload) => console.log(`connected: ${JSON.stringify(payload)}`),
    closed: closed.resolve,
  },
});

async function results(query) {
  const found = [];
  for await (const result of client.iterate({ query })) found.push(result);
  return found;
}

(async () => {
  const [answer] = await results("{ double(of: 21) }");
  console.log(`query: ${JSON.stringify(answer)}`);
  for (const result of await results("subscription { count(to: 3) }")) {
    console.log(`subscription: ${JSON.stringify(result)}`);
  }
  console.log("subscription: complete");
  const refused = await results("{ nothing }").catch((errors) => errors[0].message);
  console.log(`invalid query: ${refused}`);
  const both = await Promise.all([results("subscription { count(to: 3) }"), results("subscription { count(to: 5) }")]);
  console.log(`two at once: ${both.map((all) => all.map(({ data }) => data.count).join(" ")).join(" and ")}`);
  await client.dispose();
  const { code, reason } = await closed.event;
  console.log(`closed: ${code} ${reason}`);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
