"use strict";
// A browser may keep a page for its back button in spite of no-store. That page is loaded again: the user may have logged out.
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    document.documentElement.hidden = true;
    location.reload();
  }
});
