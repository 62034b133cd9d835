// openid-client: log in at the provider, call the API, refresh: `node oidc_client.mjs ISSUER API`. It prints JSON.
import * as client from 'openid-client'

const [issuer, api] = process.argv.slice(2)
const insecure = { execute: [client.allowInsecureRequests] }
const config = await client.discovery(new URL(issuer), 'app', undefined, client.None(), insecure)
const verifier = client.randomPKCECodeVerifier()
const redirect = 'http://127.0.0.1/callback'
const state = client.randomState()
let address = client.buildAuthorizationUrl(config, {
  redirect_uri: redirect,
  scope: 'openid offline_access items:read',
  prompt: 'consent',
  resource: `${api}/jwt`,
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  state,
})
const cookies = new Map()
while (!address.href.startsWith(redirect)) {
  const cookie = [...cookies].map((pair) => pair.join('=')).join('; ')
  const response = await fetch(address, { redirect: 'manual', headers: { cookie } })
  for (const line of response.headers.getSetCookie()) {
    const [name, value] = line.split(';')[0].split(/=(.*)/s)
    cookies.set(name, value)
  }
  address = new URL(response.headers.get('location'), address)
}
const tokens = await client.authorizationCodeGrant(config, address, { pkceCodeVerifier: verifier, expectedState: state })
const call = async (token) => (await fetch(`${api}/jwt`, { headers: { authorization: `Bearer ${token}` } })).status
const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token)
console.log(JSON.stringify({
  access: await call(tokens.access_token),
  refreshed: await call(refreshed.access_token),
  id: await call(tokens.id_token),
  refresh: await call(tokens.refresh_token),
}))
