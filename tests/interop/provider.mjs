// A certified OpenID provider, as an authorization server for the tests: `node provider.mjs`.
//
// Every user is logged in as ada and consents to everything, without a page. Access tokens for the resources are JWTs
// (RFC 9068), those without a resource are opaque. Clients register themselves (RFC 7591).
import { createServer } from 'node:http'
import Provider from 'oidc-provider'


const SCOPES = 'mcp:use items:read items:write'
const server = createServer()
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const issuer = `http://127.0.0.1:${server.address().port}`

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'api',
      client_secret: 'the-secret-of-the-api',
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
      introspection_endpoint_auth_method: 'client_secret_basic',
    },
    {
      client_id: 'machine',
      client_secret: 'the-secret-of-the-machine',
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
      scope: SCOPES,
    },
    {
      client_id: 'app',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      application_type: 'native',
      scope: `openid offline_access ${SCOPES}`,
    },
  ],
  scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
    dPoP: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (!/^http:\/\/127\.0\.0\.1:\d+\//.test(resource)) throw new Error(`unknown resource ${resource}`)
        const accessTokenFormat = resource.includes('/opaque') ? 'opaque' : 'jwt'
        return { scope: SCOPES, audience: resource, accessTokenFormat, jwt: { sign: { alg: 'RS256' } } }
      },
    },
  },
  // A client that registered itself for some scopes may ask for others later, as a step-up does.
  extraClientMetadata: {
    properties: ['software_id'],
    validator: (ctx, key, value, metadata) => { metadata.scope = `openid offline_access ${SCOPES}` },
  },
  pkce: { required: () => true },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
})

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next()
  const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res)
  if (prompt.name === 'login') {
    return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: 'ada' } })
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id })
  const scopes = params.scope ?? ''
  grant.addOIDCScope(scopes)
  for (const resource of [params.resource].flat().filter(Boolean)) grant.addResourceScope(resource, scopes)
  return provider.interactionFinished(ctx.req, ctx.res, { consent: { grantId: await grant.save() } })
})

server.on('request', provider.callback())
console.log(`Serving at ${issuer}`)
