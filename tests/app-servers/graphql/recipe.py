"""GraphQL subscriptions: graphql-ws, subprotocol `graphql-transport-ws`."""

from kit import free_port, recipe

SAYS = """
connected: {"hello":"from server"}
query: {"data":{"double":42}}
subscription: {"data":{"count":1}}
subscription: {"data":{"count":2}}
subscription: {"data":{"count":3}}
subscription: complete
invalid query: Cannot query field "nothing" on type "Query".
two at once: 1 2 3 and 1 2 3 4 5
closed: 1000 Normal Closure
"""


@recipe("graphql-ws")
def graphql_ws(kit):
    kit.npm("graphql-ws@6.4.2", "graphql@16.9.0", "ws@8.23.0", servers=["graphql-ws", "ws"], clients=["graphql-ws"])
    port = free_port()
    kit.start("graphql", "node", kit.here / "server.cjs", port, port=port)
    kit.gate(p4000=port)
    kit.dialogue(port, "graphql-ws", "node", kit.here / "client.cjs", expect=SAYS)
    kit.answer(port, "/graphql", "graphql-transport-ws", (101, "graphql-transport-ws"))
    # A client of the older subscriptions-transport-ws; the server closes with 4406 afterwards.
    kit.answer(port, "/graphql", "graphql-ws", (101, None))
