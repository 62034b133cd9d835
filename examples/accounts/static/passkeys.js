"use strict";
// Buttons with data-passkey: log in, prove a second factor, confirm who it is, or add a passkey.
const base = document.currentScript.dataset.base;

async function post(path, body) {
  const headers = {"content-type": "application/json"};
  const answer = await fetch(base + path, {method: "POST", headers, body: JSON.stringify(body)});
  const text = await answer.text();
  const fields = text.startsWith("{") ? JSON.parse(text) : {};
  if (!answer.ok) {
    throw Object.assign(new Error(fields.detail || "That did not work"), {status: answer.status});
  }
  return {status: answer.status, ...fields};
}

async function sign(options) {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey);
  return navigator.credentials.get({publicKey});
}

const actions = {
  async login() {
    const credential = await sign(await post("/login/passkey/begin", {}));
    return post("/login/passkey/finish", {credential});
  },
  async second() {
    const credential = await sign(await post("/login/challenge", {factor: "passkey"}));
    return post("/login/passkey", {credential});
  },
  async confirm() {
    const factor = "passkey";
    const credential = await sign(await post("/login/step-up/challenge", {factor}));
    return post("/login/step-up", {factor, credential});
  },
  async enrol() {
    const begun = await post("/factors/passkey", {name: document.getElementById("passkey-name").value || "Passkey"});
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(begun.publicKey);
    const credential = await navigator.credentials.create({publicKey});
    return post("/factors/confirm", {enrolment: begun.enrolment, credential});
  },
};

async function run(button) {
  const status = document.getElementById("passkey-status");
  status.hidden = true;
  try {
    const {status: code} = await actions[button.dataset.passkey]();
    location.assign(code === 202 ? `${base}/login/second` : button.dataset.next);
  } catch (error) {
    if (button.dataset.passkey === "enrol" && error.status === 401) {
      location.assign(`${base}/step-up?error=log_in_again&next=${base}/security`);
      return;
    }
    status.textContent = error.name === "NotAllowedError" ? "No passkey was used." : error.message;
    status.hidden = false;
  }
}

for (const button of document.querySelectorAll("[data-passkey]")) {
  button.hidden = !window.PublicKeyCredential;
  button.addEventListener("click", () => run(button));
}
