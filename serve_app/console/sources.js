// Where the sound of a job comes from, by its ID: a URL that was submitted or given here, or a chosen file's object URL.
// In memory only: a presigned URL is a secret, and the server gives none out.

export const sources = new Map();
