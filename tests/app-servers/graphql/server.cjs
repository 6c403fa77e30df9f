// server.cjs PORT
const { WebSocketServer } = require("ws");
const { useServer } = require("graphql-ws/use/ws");
const { GraphQLInt, GraphQLNonNull, GraphQLObjectType, GraphQLSchema } = require("graphql");

const number = { type: new GraphQLNonNull(GraphQLInt) };
const query = new GraphQLObjectType({
  name: "Query",
  fields: { double: { ...number, args: { of: number }, resolve: (_, { of }) => 2 * of } },
});
const subscription = new GraphQLObjectType({
  name: "Subscription",
  fields: {
    count: {
      ...number,
      args: { to: number },
      async *subscribe(_, { to }) {
        for (let count = 1; count <= to; count += 1) yield { count };
      },
    },
  },
});
const schema = new GraphQLSchema({ query, subscription });
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), path: "/graphql" });
useServer({ schema, onConnect: () => ({ hello: "from server" }) }, server);
