// oauth4webapi: bound tokens: `node dpop_client.mjs ISSUER API PATH`. It prints JSON.
import * as oauth from 'oauth4webapi'

const [issuer, api, path] = process.argv.slice(2)
const insecure = { [oauth.allowInsecureRequests]: true }
const url = new URL(issuer)
const as = await oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, insecure))
const client = { client_id: 'machine' }
const secret = oauth.ClientSecretBasic('the-secret-of-the-machine')

async function tokenWith(DPoP) {
  const parameters = new URLSearchParams({ scope: 'items:read', resource: `${api}${path}` })
  const response = await oauth.clientCredentialsGrantRequest(as, client, secret, parameters, { DPoP, ...insecure })
  return (await oauth.processClientCredentialsResponse(as, client, response)).access_token
}

const proofs = []
async function call(token, DPoP, options = {}) {
  try {
    const response = await oauth.protectedResourceRequest(
      token, 'GET', new URL(`${api}${options.path ?? path}`), new Headers(), undefined,
      {
        DPoP,
        ...insecure,
        [oauth.customFetch]: (to, init) => {
          proofs.push(new Headers(init.headers).get('dpop'))
          return fetch(to, init)
        },
      },
    )
    return response.status
  } catch (error) {
    if (error.status === undefined) throw error
    return error.status
  }
}

const handle = async () => oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
const own = await handle()
const token = await tokenWith(own)
const first = await call(token, own)
const again = await call(token, own)
const foreign = await call(token, await handle())
const plain = (await fetch(`${api}${path}`, { headers: { authorization: `Bearer ${token}` } })).status
const headers = { authorization: `DPoP ${token}`, dpop: proofs[0] }
const replayed = (await fetch(`${api}${path}`, { headers })).status
const unbound = (await fetch(`${api}/jwt`, { headers: { authorization: `Bearer ${token}` } })).status
console.log(JSON.stringify({ first, again, foreign, plain, replayed, unbound }))
