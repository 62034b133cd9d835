// A certified OpenID provider that users sign in with: `node sign_in_provider.mjs`.
//
// Its page has a link for each user, and one to refuse; consent needs no page. PKCE is required, and answers have `iss`.
// POST /rotate signs with a new key from then on, as a provider that is started again with other keys does.
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import Provider from 'oidc-provider'

const USERS = ['ada', 'mallory']
const server = createServer()
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const issuer = `http://127.0.0.1:${server.address().port}`

const newKey = () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' }
}

const page = (ctx, title, body) => {
  ctx.type = 'html'
  ctx.body = `<!doctype html><title>${title}</title><h1>${title}</h1>${body}`
}

// What a provider stores, here for as long as this process runs: also after it was started again with other keys.
const stored = new Map()
const adapter = (model) => {
  const all = () => [...stored].filter(([key]) => key.startsWith(`${model}:`))
  return {
    find: async (id) => stored.get(`${model}:${id}`),
    findByUid: async (uid) => all().find(([, payload]) => payload.uid === uid)?.[1],
    upsert: async (id, payload) => { stored.set(`${model}:${id}`, payload) },
    consume: async (id) => { stored.get(`${model}:${id}`).consumed = Math.floor(Date.now() / 1000) },
    destroy: async (id) => { stored.delete(`${model}:${id}`) },
    revokeByGrantId: async (grant) => {
      for (const [key, payload] of all()) if (payload.grantId === grant) stored.delete(key)
    },
  }
}

const start = (keys) => {
  const provider = new Provider(issuer, {
    adapter,
    jwks: { keys },
    cookies: { keys: ['a key for the cookies of this test'] },
    features: {
      devInteractions: { enabled: false },
      registration: { enabled: true },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) =>
          page(ctx, 'Log out of the provider?', `${form}<button form="op.logoutForm" name="logout" value="yes">Yes</button>`),
      },
    },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    pkce: { required: () => true },
    // Its own dispatcher refuses addresses of this machine, where the application is.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: id, email: `${id}@example.com`, email_verified: id !== 'mallory' }),
    }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  })
  provider.use(async (ctx, next) => {
    if (!ctx.path.startsWith('/interaction/')) return next()
    const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res)
    const finish = (result) => provider.interactionFinished(ctx.req, ctx.res, result)
    if (prompt.name === 'consent') {
      const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id })
      grant.addOIDCScope(params.scope)
      return finish({ consent: { grantId: await grant.save() } })
    }
    if (ctx.query.refuse) return finish({ error: 'access_denied', error_description: '<b>a text of the provider</b>' })
    if (USERS.includes(ctx.query.as)) return finish({ login: { accountId: ctx.query.as } })
    const links = USERS.map((name) => `<p><a href="${ctx.path}?as=${name}">${name}</a></p>`).join('')
    return page(ctx, 'Sign in', `${links}<p><a href="${ctx.path}?refuse=yes">Refuse</a></p>`)
  })
  return provider.callback()
}

let keys = [newKey()]
let callback = start(keys)
server.on('request', (request, response) => {
  if (request.method !== 'POST' || request.url !== '/rotate') return callback(request, response)
  keys = [newKey(), ...keys]
  callback = start(keys)
  return response.end()
})
console.log(`Serving at ${issuer}`)
