"use strict";
// A browser may keep a page for its back button, although that has no-store: it is loaded again, by whoever is logged in.
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    document.documentElement.hidden = true;
    location.reload();
  }
});
