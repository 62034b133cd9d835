// oauth4webapi and openid-client at the token endpoint of the login router: `node token_client.mjs API`. It prints JSON.
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'

const [api] = process.argv.slice(2)
const as = { issuer: api, token_endpoint: `${api}/token` }
const client = { client_id: 'interop' }
const insecure = { [oauth.allowInsecureRequests]: true }

async function grant(kind, parameters) {
  const response = await oauth.genericTokenEndpointRequest(as, client, oauth.None(), kind, parameters, insecure)
  try {
    return await oauth.processGenericTokenEndpointResponse(as, client, response)
  } catch (error) {
    return { error: error.error, status: error.status }
  }
}

const password = { username: 'alice', password: 'wonderland tea party', scope: 'items:read' }
const tokens = await grant('password', password)
const config = new openid.Configuration(as, 'interop', undefined, openid.None())
openid.allowInsecureRequests(config)
const refreshed = await openid.refreshTokenGrant(config, tokens.refresh_token)
const status = async (token, path) =>
  (await fetch(`${api}${path}`, { headers: { authorization: `Bearer ${token}` } })).status
console.log(JSON.stringify({
  type: tokens.token_type,
  scope: tokens.scope,
  items: await status(tokens.access_token, '/items'),
  changes: await status(tokens.access_token, '/changes'),
  refreshed: await status(refreshed.access_token, '/items'),
  wrong: await grant('password', { ...password, password: 'guess' }),
  unsupported: await grant('urn:ietf:params:oauth:grant-type:device_code', {}),
  exceeding: await grant('password', { ...password, scope: 'admin' }),
}))
