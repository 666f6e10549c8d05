// Words in Korean and English, and numbers and times as their readers write them.

import { SENTENCES } from "./sentences.js"; // made by the server, of its own table

const WORDS = {
  en: {
    title: "ECG ML Server",
    console: "Console",
    jobs: "Jobs",
    submit: "Submit a job",
    skip: "Skip to the content",
    language: "한국어",
    theme: "Light or dark",
    key: "API key",
    forget_key: "Forget the key",
    live: "live",
    polling: "every 3 s",
    offline: "no connection",
    connecting: "connecting…",
    all: "All",
    accepted: "Waiting",
    processing: "Running",
    completed: "Completed",
    failed: "Failed",
    running_of: "{0} of {1} running",
    waiting_of: "{0} of {1} waiting",
    full: "The queue is full",
    failing: "Broken: {0}",
    job: "Job",
    state: "State",
    progress: "Progress",
    age: "Age",
    duration: "Video",
    speed: "Speed",
    warnings: "Warnings",
    callback: "Callback",
    position: "no. {0} in the queue",
    no_jobs: "No jobs here.",
    older: "Older",
    newest: "Newest",
    open_job: "Open a job by its ID",
    open: "Open",
    loading: "Loading…",
    filter: "Filter by state",
    pages: "Pages",
    tab_pending: "Callback pending",
    tab_undelivered: "Callback undelivered",
    cb_none: "–",
    cb_pending: "pending",
    cb_delivered: "delivered",
    cb_undelivered: "undelivered",
    queued: "Waiting",
    starting: "Starting",
    extraction: "Extraction",
    detection: "Speech detection",
    diarization: "Speakers",
    transcription: "Transcription",
    prosody: "Level and pitch",
    analysis: "Measures, emotion",
    assembly: "Assembly",
    done: "Done",
    created: "Created",
    started: "Started",
    finished: "Ended",
    waited: "Waited",
    processed: "Processing",
    spoken: "Language",
    speakers: "Speakers",
    words: "Words",
    model: "Models",
    device: "Device",
    attempts: "Attempts",
    error: "Error",
    cancel: "Cancel",
    delete: "Delete",
    redeliver: "Send the callback again",
    download: "Download",
    cancel_ask: "Cancel this job? It ends as CANCELLED.",
    delete_ask: "Delete this job with its result? There is no way back.",
    redeliver_ask: "Send the end of this job to its backend once more?",
    yes: "Yes",
    no: "No",
    cancelled: "The job will end as cancelled.",
    ended_meanwhile: "The job has ended meanwhile.",
    deleted: "The job is deleted.",
    redelivered: "The callback is due again.",
    times: "What ran when",
    attempt_n: "Run {0}, attempt {1}",
    no_stages: "No stage has begun yet.",
    stage_row: "{0}: began after {1}, took {2}",
    stage_runs: "{0}: began after {1}, still runs",
    given_back: "given back",
    events: "All events",
    when: "When",
    event: "Event",
    detail: "Detail",
    callbacks: "Callbacks",
    no_callbacks: "None was due yet.",
    callback_now: "{0}, tries: {1}",
    last_error: "last answer: {0}",
    ev_queued: "queued",
    ev_started: "got a slot",
    ev_attempt: "attempt began",
    ev_given_back: "given back: the server stopped",
    ev_stage_started: "stage began",
    ev_stage_ended: "stage ended",
    ev_cancel_requested: "cancel requested",
    ev_completed: "completed",
    ev_failed: "failed",
    ev_callback_delivered: "callback delivered",
    ev_callback_failed: "callback failed, is tried again",
    ev_callback_undelivered: "callback given up",
    ev_callback_renewed: "callback asked for again",
    transcript: "Transcript",
    no_speech: "Nobody speaks in this video.",
    no_result: "The transcript comes when the job is completed.",
    play: "Play",
    pause: "Pause",
    zoom_in: "Closer",
    zoom_out: "Wider",
    follow: "Follow the playhead",
    playhead: "Playhead",
    overview: "Whole video",
    at_word: "{0}, {1}: {2}",
    source: "Sound",
    source_none:
      "The server keeps no media, and no URL leaves it. To listen, choose the file or give its URL; this page keeps it to itself.",
    source_file: "Choose a file",
    source_url: "URL of the video",
    source_use: "Use",
    source_gone: "This URL does not play (any more): it may have run out.",
    source_sent: "Plays from the URL that you submitted.",
    source_forget: "Without sound",
    level: "Level, dBFS",
    pitch: "Pitch, Hz",
    speaker_n: "Speaker {0}",
    low_confidence: "Shaded words: the recogniser was not sure",
    keys_help:
      "Click a word, or with the ruler in focus: ← → by word, Shift for 5 s, Page for 30 s, + − zoom, space plays.",
    neutral: "neutral",
    happy: "happy",
    sad: "sad",
    angry: "angry",
    fearful: "fearful",
    disgusted: "disgusted",
    surprised: "surprised",
    job_id: "Job ID",
    video_url: "Video URL",
    video_url_help: "The server fetches it with GET only. This page keeps it in memory to play it, until it is closed.",
    base_url: "Callback base",
    base_url_help: "Empty: the server's own setting.",
    lang_field: "Language of the speech",
    lang_help: "auto, or a code such as ko",
    gpu: "On a GPU where there is one",
    emotions: "With emotions",
    workers: "Pieces at once",
    send: "Submit",
    new_id: "New ID",
    key_ask: "This server wants an API key. It stays in this tab and is forgotten when the tab is closed.",
    key_wrong: "This key is not valid.",
    use: "Use",
    not_found: "There is no such job.",
    no_page: "There is no such page.",
    back: "To the jobs",
    job_now: "Job {0}: {1}",
    refresh_failed: "The server does not answer: {0}",
    s: "s",
    warned: "Warnings: {0}",
    on_page: "{0} jobs",
  },
  ko: {
    title: "ECG ML 서버",
    console: "콘솔",
    jobs: "작업",
    submit: "작업 제출",
    skip: "본문으로 건너뛰기",
    language: "English",
    theme: "밝게/어둡게",
    key: "API 키",
    forget_key: "키 지우기",
    live: "실시간",
    polling: "3초마다",
    offline: "연결 안 됨",
    connecting: "연결 중…",
    all: "전체",
    accepted: "대기",
    processing: "실행 중",
    completed: "완료",
    failed: "실패",
    running_of: "실행 {0}/{1}",
    waiting_of: "대기 {0}/{1}",
    full: "대기열이 가득 찼습니다",
    failing: "고장: {0}",
    job: "작업",
    state: "상태",
    progress: "진행률",
    age: "경과",
    duration: "영상 길이",
    speed: "속도",
    warnings: "경고",
    callback: "콜백",
    position: "대기 순번 {0}",
    no_jobs: "작업이 없습니다.",
    older: "이전",
    newest: "최신",
    open_job: "ID로 작업 열기",
    open: "열기",
    loading: "불러오는 중…",
    filter: "상태로 거르기",
    pages: "페이지",
    tab_pending: "콜백 전송 대기",
    tab_undelivered: "콜백 전달 실패",
    cb_none: "–",
    cb_pending: "전송 대기",
    cb_delivered: "전달됨",
    cb_undelivered: "전달 실패",
    queued: "대기",
    starting: "준비",
    extraction: "오디오 추출",
    detection: "음성 감지",
    diarization: "화자 식별",
    transcription: "전사",
    prosody: "음량과 음높이",
    analysis: "감정과 측정",
    assembly: "결과 정리",
    done: "완료",
    created: "생성",
    started: "시작",
    finished: "종료",
    waited: "대기 시간",
    processed: "처리 시간",
    spoken: "언어",
    speakers: "화자 수",
    words: "단어 수",
    model: "모델",
    device: "장치",
    attempts: "시도",
    error: "오류",
    cancel: "취소",
    delete: "삭제",
    redeliver: "콜백 다시 보내기",
    download: "내려받기",
    cancel_ask: "이 작업을 취소할까요? CANCELLED로 끝납니다.",
    delete_ask: "이 작업과 결과를 삭제할까요? 되돌릴 수 없습니다.",
    redeliver_ask: "이 작업의 종료를 백엔드에 다시 알릴까요?",
    yes: "예",
    no: "아니요",
    cancelled: "작업이 취소로 끝납니다.",
    ended_meanwhile: "그사이에 작업이 끝났습니다.",
    deleted: "작업을 삭제했습니다.",
    redelivered: "콜백을 다시 보냅니다.",
    times: "단계별 시간",
    attempt_n: "실행 {0}, 시도 {1}",
    no_stages: "아직 시작된 단계가 없습니다.",
    stage_row: "{0}: {1} 후 시작, {2} 걸림",
    stage_runs: "{0}: {1} 후 시작, 진행 중",
    given_back: "반환됨",
    events: "모든 이벤트",
    when: "시각",
    event: "이벤트",
    detail: "내용",
    callbacks: "콜백",
    no_callbacks: "아직 보낼 콜백이 없었습니다.",
    callback_now: "{0}, 시도: {1}",
    last_error: "마지막 응답: {0}",
    ev_queued: "대기열에 들어감",
    ev_started: "자리 배정",
    ev_attempt: "시도 시작",
    ev_given_back: "서버 종료로 반환",
    ev_stage_started: "단계 시작",
    ev_stage_ended: "단계 끝",
    ev_cancel_requested: "취소 요청",
    ev_completed: "완료",
    ev_failed: "실패",
    ev_callback_delivered: "콜백 전달됨",
    ev_callback_failed: "콜백 실패, 다시 시도",
    ev_callback_undelivered: "콜백 포기",
    ev_callback_renewed: "콜백 재요청",
    transcript: "전사문",
    no_speech: "이 영상에는 말소리가 없습니다.",
    no_result: "작업이 완료되면 전사문이 나옵니다.",
    play: "재생",
    pause: "일시정지",
    zoom_in: "확대",
    zoom_out: "축소",
    follow: "재생 위치 따라가기",
    playhead: "재생 위치",
    overview: "영상 전체",
    at_word: "{0}, {1}: {2}",
    source: "소리",
    source_none:
      "서버는 미디어를 보관하지 않고 URL도 내보내지 않습니다. 들으려면 파일을 고르거나 URL을 입력하세요. 이 페이지 밖으로 나가지 않습니다.",
    source_file: "파일 선택",
    source_url: "영상 URL",
    source_use: "사용",
    source_gone: "이 URL은 재생되지 않습니다. 만료되었을 수 있습니다.",
    source_sent: "제출한 URL에서 재생합니다.",
    source_forget: "소리 없이",
    level: "음량, dBFS",
    pitch: "음높이, Hz",
    speaker_n: "화자 {0}",
    low_confidence: "음영: 인식이 불확실한 단어",
    keys_help: "단어를 누르거나, 눈금자에서 ← → 단어, Shift 5초, Page 30초, + − 확대, 스페이스 재생.",
    neutral: "중립",
    happy: "기쁨",
    sad: "슬픔",
    angry: "분노",
    fearful: "두려움",
    disgusted: "혐오",
    surprised: "놀람",
    job_id: "작업 ID",
    video_url: "영상 URL",
    video_url_help: "서버는 GET으로만 가져옵니다. 이 페이지는 재생을 위해 닫힐 때까지 메모리에만 둡니다.",
    base_url: "콜백 기본 주소",
    base_url_help: "비우면 서버의 설정을 씁니다.",
    lang_field: "말의 언어",
    lang_help: "auto 또는 ko 같은 코드",
    gpu: "GPU가 있으면 사용",
    emotions: "감정 분석",
    workers: "동시 처리 조각",
    send: "제출",
    new_id: "새 ID",
    key_ask: "이 서버는 API 키가 필요합니다. 키는 이 탭에만 남고 탭을 닫으면 지워집니다.",
    key_wrong: "유효하지 않은 키입니다.",
    use: "사용",
    not_found: "그런 작업이 없습니다.",
    no_page: "그런 페이지가 없습니다.",
    back: "작업 목록으로",
    job_now: "작업 {0}: {1}",
    refresh_failed: "서버가 응답하지 않습니다: {0}",
    s: "초",
    warned: "경고: {0}",
    on_page: "작업 {0}개",
  },
};

const KEPT = "language";
let language = remembered() ?? (navigator.language.startsWith("ko") ? "ko" : "en");
document.documentElement.lang = language;

function remembered() {
  const kept = localStorage.getItem(KEPT);
  return kept in WORDS ? kept : null;
}

export function switchLanguage() {
  language = language === "ko" ? "en" : "ko";
  localStorage.setItem(KEPT, language);
  document.documentElement.lang = language;
}

/** The words for `key`, with {0}, {1}, … filled in; the key itself where there are none. */
export function t(key, ...values) {
  const words = WORDS[language][key] ?? key;
  return words.replace(/\{(\d)\}/g, (_, n) => values[n]);
}

/** A result's warnings in the reader's language; in the server's words where there are no codes, or an unknown one. */
export function warnings({ warnings, warning_codes = [] }) {
  return warnings.map(
    (text, i) => (warning_codes.length === warnings.length ? sentence(warning_codes[i]) : null) ?? text,
  );
}

const AMOUNTS = { seconds: (value) => value.toFixed(1), share: (value) => (100 * value).toFixed(0) };

function sentence({ code, ...amounts }) {
  const words = SENTENCES[code]?.[language];
  const wanted = words?.match(/(?<=\{)\w+(?=\})/g) ?? [];
  if (!words || wanted.some((name) => amounts[name] == null)) return null;
  return words.replace(/\{(\w+)\}/g, (_, name) => AMOUNTS[name]?.(amounts[name]) ?? amounts[name]);
}

/** Whether all languages have the same keys; a test asks. */
export function missing() {
  const keys = new Set(Object.values(WORDS).flatMap(Object.keys));
  return Object.entries(WORDS).flatMap(([name, words]) =>
    [...keys].filter((key) => !words[key]).map((key) => `${name}: ${key}`),
  );
}

/** 5.23 → "5.2 s", 75 → "1:15", 3675 → "1:01:15". */
export function length(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  return seconds < 60 ? `${seconds.toFixed(1)} ${t("s")}` : clock(seconds);
}

/** A place in a video: 75.25 → "1:15", with `digits` behind the second. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const whole = Math.floor(seconds * unit + 1e-6) / unit;
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, (whole % 60).toFixed(digits)];
  const rest = s.padStart(digits ? digits + 3 : 2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${rest}` : `${m}:${rest}`;
}

const UNITS = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

/** "3 min ago". */
export function age(seconds) {
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? UNITS.at(-1);
  return new Intl.RelativeTimeFormat(language, { style: "narrow", numeric: "always" }).format(
    -Math.max(0, Math.floor(seconds / size)),
    unit,
  );
}

/** A time of day with its date. */
export function moment(iso) {
  return iso ? new Date(iso).toLocaleString(language, { dateStyle: "medium", timeStyle: "medium" }) : "–";
}

export function number(value) {
  return value.toLocaleString(language);
}
