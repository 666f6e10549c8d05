// A result as arrays that can be looked up by time. Knows nothing of the page.

/** How long the lists of a result are is known only here: words lie flat, in the transcript's order. */
export function score(result) {
  const { segments } = result;
  const names = [...new Set(segments.map((segment) => segment.speaker.speaker_id))].sort();
  const count = segments.reduce((sum, segment) => sum + segment.words.length, 0);
  const words = {
    count,
    text: new Array(count),
    start: new Float64Array(count),
    end: new Float64Array(count),
    db: new Float32Array(count),
    hz: new Float32Array(count), // 0: not voiced
    sure: new Float32Array(count), // 0-1, NaN: unknown
    segment: new Uint32Array(count),
  };
  const first = new Uint32Array(segments.length + 1);
  let i = 0;
  segments.forEach((segment, number) => {
    first[number] = i;
    for (const word of segment.words) {
      words.text[i] = word.word;
      words.start[i] = word.start;
      words.end[i] = word.end;
      words.db[i] = word.volume_db;
      words.hz[i] = word.voiced ? word.pitch_hz : 0;
      words.sure[i] = word.confidence ?? NaN;
      words.segment[i++] = number;
    }
  });
  first[segments.length] = count;
  const speaker = Uint16Array.from(segments, (segment) => names.indexOf(segment.speaker.speaker_id));
  const order = Uint32Array.from(words.start.keys()).sort((a, b) => words.start[a] - words.start[b]);
  const rank = new Uint32Array(count);
  order.forEach((word, place) => (rank[word] = place));
  const sorted = Float64Array.from(order, (word) => words.start[word]);
  const longest = words.end.reduce((most, end, word) => Math.max(most, end - words.start[word]), 0);
  const longestSegment = segments.reduce((most, { start_time, end_time }) => Math.max(most, end_time - start_time), 0);
  const begins = Float64Array.from(segments, (segment) => segment.start_time);
  const spoken = words.hz.filter((hz) => hz > 0).sort();

  return {
    segments,
    speaker,
    first,
    words,
    speakers: names,
    duration: Math.max(
      result.duration,
      words.end.reduce((most, end) => Math.max(most, end), 0),
      0.1,
    ),
    /** Most of the voiced words lie between these, in Hz. */
    pitch: spoken.length
      ? [spoken[Math.floor(spoken.length * 0.02)] * 0.9, spoken[Math.floor(spoken.length * 0.98)] * 1.1]
      : [80, 400],
    /** The word that has begun last at `time`, the first one before all. */
    at: (time) => order[Math.max(0, after(sorted, time) - 1)] ?? -1,
    /** The word that begins `steps` after `word`. */
    beside: (word, steps) => order[Math.min(count - 1, Math.max(0, rank[word] + steps))] ?? -1,
    /** All words that sound between the two times, and perhaps some more. */
    *within(from, until) {
      for (let place = after(sorted, from - longest); place < count && sorted[place] <= until; place++)
        yield order[place];
    },
    *segmentsWithin(from, until) {
      for (let n = after(begins, from - longestSegment - 1e-9); n < segments.length && begins[n] <= until; n++) yield n;
    },
  };
}

/** How many of the sorted `values` are at most `limit`. */
function after(values, limit) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
