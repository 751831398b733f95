-- What a peer owns: its side of OWN.
-- KEYS: peer, own, due, extra, sum. ARGV: ref, lease in ms, most contents of a peer, most of
-- a host beyond the first of each peer, with how many of those a host brings no new content,
-- whether there is room for more at all; then for each entry '+' or '-', and the id.
-- Returns nothing if the peer is not known; else its address, the other one, its score, its
-- revision, the time in ms, and one letter for each entry: '+' it is owned now, 'o' too, but
-- the content must be known already, '=' it was, '-' it is gone, 'p', 'h' and 't' refused,
-- as the peer, the host or all together own too much.
local peer = redis.call('HMGET', KEYS[1], 'host', 'addr', 'dead', 'also', 'score', 'rev')
local host = peer[1]
if not host or peer[3] then
    return false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[2]), ARGV[1])
local owned = redis.call('SCARD', KEYS[2])
local before = owned
local extra = tonumber(redis.call('HGET', KEYS[4], host) or '0')
local extra_before = extra
local letters = {}
for at = 7, #ARGV, 2 do
    local id = ARGV[at + 1]
    local letter
    if ARGV[at] == '-' then
        letter = '-'
        if redis.call('SREM', KEYS[2], id) == 1 then
            owned = owned - 1
            if owned > 0 then
                extra = extra - 1
            end
        end
    elseif redis.call('SISMEMBER', KEYS[2], id) == 1 then
        letter = '='
    elseif owned >= tonumber(ARGV[3]) then
        letter = 'p'
    elseif owned > 0 and extra >= tonumber(ARGV[4]) then
        letter = 'h'
    elseif ARGV[6] ~= '1' then
        letter = 't'
    else
        letter = '+'
        if owned > 0 then
            if extra >= tonumber(ARGV[5]) then
                letter = 'o'
            end
            extra = extra + 1
        end
        redis.call('SADD', KEYS[2], id)
        owned = owned + 1
    end
    letters[#letters + 1] = letter
end
if owned ~= before then
    redis.call('HINCRBY', KEYS[5], 'owned', owned - before)
end
if extra ~= extra_before then
    if extra > 0 then
        redis.call('HSET', KEYS[4], host, extra)
    else
        redis.call('HDEL', KEYS[4], host)
    end
end
return {peer[2], peer[4] or '', peer[5] or '', peer[6], string.format('%.0f', now),
    table.concat(letters)}
