// The media of each job, by job ID: a URL that was submitted or entered here, or the object URL of a chosen file.
// Stored in memory only: a presigned URL is a secret, and the server returns none.

export const sources = new Map();
