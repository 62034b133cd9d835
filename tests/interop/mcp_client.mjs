// The MCP client of the SDK for TypeScript: `node mcp_client.mjs URL [REVISION]`. It prints what it did, as JSON.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const url = new URL(process.argv[2])
const scopes = []
let code

// A user who is logged in and consents: what a browser would do with the redirects.
async function visit(address) {
  const cookies = new Map()
  while (!address.href.startsWith('http://127.0.0.1/callback')) {
    const cookie = [...cookies].map((pair) => pair.join('=')).join('; ')
    const response = await fetch(address, { redirect: 'manual', headers: { cookie } })
    for (const line of response.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split(/=(.*)/s)
      cookies.set(name, value)
    }
    const location = response.headers.get('location')
    if (!location) throw new Error(`${response.status} ${await response.text()}`)
    address = new URL(location, address)
  }
  return address.searchParams
}

const store = {}
const authProvider = {
  redirectUrl: 'http://127.0.0.1/callback',
  clientMetadata: {
    client_name: 'interop',
    redirect_uris: ['http://127.0.0.1/callback'],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
    application_type: 'native',
  },
  clientInformation: () => store.client,
  saveClientInformation: (client) => { store.client = client },
  tokens: () => store.tokens,
  saveTokens: (tokens) => { store.tokens = tokens },
  codeVerifier: () => store.verifier,
  saveCodeVerifier: (verifier) => { store.verifier = verifier },
  redirectToAuthorization: async (address) => {
    scopes.push(address.searchParams.get('scope'))
    code = (await visit(address)).get('code')
  },
}

const transport = () => new StreamableHTTPClientTransport(url, { authProvider })
let connection = transport()
let client = new Client({ name: 'interop', version: '1' })

// The SDK throws after the redirect; an application finishes the login and tries again.
async function authorized(action) {
  try {
    return await action()
  } catch (error) {
    if (error.constructor.name !== 'UnauthorizedError') throw error
    await connection.finishAuth(code)
    return null
  }
}

if ((await authorized(() => client.connect(connection))) === null) {
  connection = transport()
  client = new Client({ name: 'interop', version: '1' })
  await client.connect(connection)
}
const tools = (await client.listTools()).tools.map((tool) => tool.name).sort()
const read = await client.callTool({ name: 'list_items', arguments: {} })
const add = () => client.callTool({ name: 'add_item', arguments: { name: 'three' } })
const added = (await authorized(add)) ?? (await add())
console.log(JSON.stringify({ scopes, tools, read: read.content, added: added.content, revision: connection.protocolVersion }))
await client.close()
