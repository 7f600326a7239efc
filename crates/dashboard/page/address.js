// The page's own address, which has what is asked for: to be kept as a bookmark, and to be sent to others.

/** Puts these into the address; those that are undefined are left out. */
export function remember(asked) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(asked)) {
    if (value === undefined) query.delete(name);
    else query.set(name, value);
  }
  history.replaceState(null, "", `${location.pathname}?${query}`);
}
